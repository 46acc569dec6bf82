"""Events of permutations: weights of any sign, alignments of no power of two, and exact sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from moe_routing.conformance.calls.permutation import PermutationCase
from moe_routing.conformance.events.permutation import MIXED, ORDERS, configs
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.permutation import case_of
from moe_routing.conformance.judge.permutation import Due
from moe_routing.implementations import Capabilities
from moe_routing.implementations.permitted import listed
from moe_routing.reference import PermutationConfig, Routes
from moe_routing.reference.formats import Ids
from moe_routing.reference.routes import ABSENT

ODD_ALIGNS = (24, 96, 12)
"""Alignments that are no power of two, as of rows that three warps share."""

Occurs = Callable[[Due], bool]


def _permuted(
    slug: str,
    statement: str,
    occurs: Occurs,
    experts: int,
    made: Any,
    change: Callable[[PermutationCase], PermutationCase] = lambda case: case,
    *,
    align: int = 1,
) -> None:
    """Register an event that these slots show, or the same without what is not claimed."""

    @event(f"permuted-{slug}", statement, lambda due: isinstance(due, Due) and occurs(due))
    def _(capabilities: Capabilities) -> Iterator[PermutationCase]:
        aligned = (configs(capabilities.permutes, experts, least) for least in (align, 1))
        for config in chain.from_iterable(aligned):
            for ids in _plainer(np.array(made, np.int64), experts):
                case = change(case_of(config, ids))
                if not capabilities.permutes.refusals(case.config, case.inputs):
                    yield case


def _plainer(ids: Ids, experts: int) -> Iterator[Ids]:
    """Yield the slots, then with an expert in place of absent ones."""
    yield ids
    if (ids == ABSENT).any():
        yield np.where(ids == ABSENT, experts - 2 - np.arange(ids.shape[1]), ids)


# Weights.

SIGNED = (-0.5, 0.0, 1.5, -2.0, 0.25, 3.0)
"""Weights below 0, of 0 and above 1, no two alike."""


def _signed(case: PermutationCase) -> PermutationCase:
    """Return the case with weights of any sign and size."""
    ids = case.inputs.expert_ids
    spread = np.resize(np.array(SIGNED), ids.size).reshape(ids.shape)
    given = np.where(ids == ABSENT, 0.0, spread).astype(np.float32)
    return replace(case, inputs=Routes(expert_ids=ids, weights=given))


def _any_sign(due: Due) -> bool:
    weights = due.routes.weights.reshape(-1)[due.present]
    both = bool((weights < 0).any() and (weights == 0).any())
    return both and bool((weights > 1).any()) and int((due.counts > 0).sum()) > 1


_permuted(
    "signed-weights",
    "present routes of weights below 0, of 0 and above 1, to several experts",
    _any_sign,
    4,
    MIXED,
    _signed,
)


# Alignments.


@event(
    "permuted-odd-alignment",
    "an alignment that is no power of two, and a count that is none of its multiples",
    lambda due: isinstance(due, Due) and _oddly(due),
)
def _(capabilities: Capabilities) -> Iterator[PermutationCase]:
    permutes = capabilities.permutes
    for align in listed(permutes.align) or ODD_ALIGNS:
        for takes in (0, align):
            config = PermutationConfig(num_experts=4, align=align, empty_takes=takes)
            for order in ORDERS:
                case = case_of(replace(config, order=order), np.array(MIXED, np.int64))
                if not permutes.refusals(case.config, case.inputs):
                    yield case


def _oddly(due: Due) -> bool:
    align = due.config.align
    return align & (align - 1) != 0 and bool((due.counts % align != 0).any())


# Sizes.


def _late(experts: int) -> Ids:
    """Return 300 tokens whose routes are absent, or to the second half of the experts."""
    last, half = experts - 1, experts // 2
    rows = ((last, half), (last, ABSENT), (half + 1, last), (last, half + 2), (ABSENT, ABSENT))
    return np.resize(np.array(rows), (300, 2))


FAMILIES["permuted-half-empty"] = "so many experts, the first half of them empty, the last busy"
for _number in (32, 64, 128, 256, 512):
    _permuted(
        f"half-empty:{_number}",
        f"{_number} experts, the first half of them empty, the last busy",
        lambda due, number=_number: (  # type: ignore[misc]
            due.counts.size == number and not due.counts[: number // 2].any() and due.counts[-1] > 0
        ),
        _number,
        _late(_number),
        align=_number // 2,
    )

_permuted(
    "slots-above-32",
    "more than 32 slots a token, all with experts of their own",
    lambda due: due.routes.top_k > 32 and bool(due.present.all()) and due.routes.num_tokens > 1,
    60,
    (np.arange(33) * 7 + 11 * np.arange(3)[:, None]) % 60,
)
_permuted(
    "tokens-above-65535",
    "more than 65,536 tokens, the last of them with a route, and an expert with as many",
    lambda due: due.routes.num_tokens > 65_536 and int(due.counts.max()) > 65_536,
    3,
    np.where(np.arange(65_541) % 16_384 == 5, 2, 1)[:, None],
)

"""Events of permutations: how routes fall on experts, and what that does to segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from moe_routing.conformance.calls.permutation import PermutationCase
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.permutation import ALIGNS, case_of
from moe_routing.conformance.judge.permutation import Due
from moe_routing.implementations import Capabilities
from moe_routing.implementations.permitted import listed
from moe_routing.implementations.permutes import Permutes
from moe_routing.reference import PermutationConfig
from moe_routing.reference.formats import Bools, Ids
from moe_routing.reference.permutation import Order
from moe_routing.reference.permutation_maps import has_repeats

Occurs = Callable[[Due], bool]
ORDERS: tuple[Order, ...] = get_args(Order)
Make = Callable[[int], Any]
"""Returns the experts of every slot, given the alignment."""


def _permuted(
    slug: str, statement: str, occurs: Occurs, experts: int, make: Make, *, least: int = 1
) -> None:
    """Register an event that the slots of ``make`` show, from the alignment ``least`` on."""

    @event(f"permuted-{slug}", statement, lambda due: isinstance(due, Due) and occurs(due))
    def _(capabilities: Capabilities) -> Iterator[PermutationCase]:
        for config in configs(capabilities.permutes, experts, least):
            case = case_of(config, np.array(make(config.align), np.int64))
            if not capabilities.permutes.refusals(case.config, case.inputs):
                yield case


def configs(permutes: Permutes, experts: int, least: int) -> Iterator[PermutationConfig]:
    """Yield configurations that ``permutes`` claims, the plainest first."""
    claimed = listed(permutes.align) or ALIGNS
    for align in sorted(n for n in claimed if n >= least):
        for takes in (0, align):
            config = PermutationConfig(num_experts=experts, align=align, empty_takes=takes)
            yield from (replace(config, order=each) for each in ORDERS if each in permutes.order)


def _busy(due: Due) -> Ids:
    return np.flatnonzero(due.counts)


def _only(expert: int) -> Occurs:
    """Return whether one expert of several has all routes, and several of them."""
    return lambda due: due.counts.size > 1 and due.counts[expert] > 1 and _busy(due).size == 1


def _left(due: Due, over: int) -> Ids:
    """Return the busy experts whose counts leave so much over a multiple of the alignment."""
    align = due.config.align
    enough = align > (2 if over < 0 else 1)
    return np.flatnonzero((due.counts > 0) & (due.counts % align == over % align) & enough)


MIXED = ((2, 0), (0, 3), (3, 2), (0, 2))
"""Four tokens of two slots, for four experts of which one is empty; no two slots alike."""


def _mixed(align: int) -> Any:
    return MIXED


_permuted(
    "several",
    "several experts have routes, at least one of them several",
    lambda due: _busy(due).size > 1 and due.counts.max() > 1,
    4,
    _mixed,
)
_permuted(
    "second-slot",
    "the experts of the second slots are not those of the first",
    lambda due: (
        due.routes.top_k > 1
        and due.routes.num_tokens > 0
        and not np.array_equal(
            np.sort(due.routes.expert_ids[:, 0]), np.sort(due.routes.expert_ids[:, 1])
        )
    ),
    4,
    _mixed,
)
_permuted(
    "order-at-stake",
    "a stable order is promised, and an expert has several routes",
    lambda due: due.config.order == "stable" and bool((due.counts > 1).any()),
    4,
    _mixed,
)
_permuted(
    "distinct-weights",
    "several present routes, whose weights all differ",
    lambda due: _distinct(due),
    4,
    _mixed,
)
_permuted(
    "one-expert",
    "all routes go to one expert of several",
    lambda due: due.counts.size > 1 and _busy(due).size == 1,
    4,
    lambda align: [[1]] * 5,
)
_permuted(
    "two-experts",
    "all routes go to two experts of more",
    lambda due: due.counts.size > 2 and _busy(due).size == 2,
    4,
    lambda align: [[3, 1]] * 3,
)
_permuted(
    "first-expert",
    "all routes go to the first expert",
    _only(0),
    4,
    lambda align: [[0]] * 3,
)
_permuted(
    "last-expert",
    "all routes go to the last expert",
    _only(-1),
    4,
    lambda align: [[3]] * 3,
)
_permuted(
    "every-other-empty",
    "every other expert is empty, and the ones between are not",
    lambda due: (
        due.counts.size > 3 and not due.counts[1::2].any() and bool((due.counts[::2] > 0).all())
    ),
    5,
    lambda align: [[0, 2], [4, 0], [2, 4]],
)
_permuted(
    "empty-first-and-last",
    "the first expert and the last are empty, and one between is not",
    lambda due: due.counts.size > 2 and due.counts[0] == due.counts[-1] == 0 < due.counts.max(),
    4,
    lambda align: [[1, 2], [2, 1]],
)
_permuted(
    "empty-takes-rows",
    "an empty expert takes rows, after one that is not empty",
    lambda due: (
        due.config.empty_takes > 0 and bool((due.counts[1:] == 0).any()) and bool(due.counts.any())
    ),
    4,
    _mixed,
)
_permuted(
    "count-on-multiple",
    "a count is a multiple of the alignment, which is above 1",
    lambda due: bool(_left(due, 0).size),
    3,
    lambda align: [[1]] * align + [[2]],
    least=2,
)
_permuted(
    "count-one-past",
    "every count is one more than a multiple of the alignment, which is above 1",
    lambda due: _left(due, 1).size == due.counts.size > 1,
    3,
    lambda align: [[0]] + [[1]] * (align + 1) + [[2]],
    least=2,
)
_permuted(
    "count-one-short",
    "a count is one less than a multiple of the alignment, which is above 2",
    lambda due: bool(_left(due, -1).size),
    3,
    lambda align: [[1]] * (align - 1) + [[2]],
    least=4,
)
_permuted(
    "repeated-expert",
    "an expert holds several slots of a token",
    lambda due: has_repeats(due.routes),
    3,
    lambda align: [[1, 1], [0, 1], [2, 2]],
)
_permuted(
    "all-experts",
    "every token goes to every expert, of which there are several",
    lambda due: (
        due.routes.num_tokens > 0
        and due.routes.top_k == due.config.num_experts > 1
        and bool((due.counts == due.routes.num_tokens).all())
    ),
    3,
    lambda align: [[2, 0, 1], [0, 1, 2]],
)
_permuted(
    "none-absent",
    "no route is absent, of several",
    lambda due: due.num_routes > 1 and bool(due.present.all()),
    4,
    _mixed,
)
_permuted(
    "some-absent",
    "some routes of a token are absent, and others are not",
    lambda due: _mixes_absent(due.routes.expert_ids < 0),
    4,
    lambda align: [[2, -1], [0, 3], [-1, 3], [3, 0]],
)
_permuted(
    "token-absent",
    "all routes of a token are absent, and others are not",
    lambda due: bool((due.routes.expert_ids < 0).all(axis=1).any() and due.present.any()),
    4,
    lambda align: [[2, 0], [-1, -1], [3, 2]],
)
_permuted(
    "all-absent",
    "every route is absent, of several",
    lambda due: due.num_routes > 1 and not due.present.any(),
    3,
    lambda align: [[-1, -1], [-1, -1]],
)
_permuted(
    "routes-above-65535",
    "more than 65,535 routes",
    lambda due: due.num_routes > 65_535,
    60,
    lambda align: (np.arange(4097)[:, None] * 7 + 3 * np.arange(16)) % 60,
)

FAMILIES["permuted-tokens"] = "a permutation of so many tokens"
FAMILIES["permuted-experts"] = "a permutation over so many experts, the last of them busy"


def _of_tokens(number: int) -> None:
    _permuted(
        f"tokens:{number}",
        f"{number} tokens",
        lambda due: due.routes.num_tokens == number,
        4,
        lambda align: np.resize(np.array(MIXED), (number, 2)),
    )


def _of_experts(number: int) -> None:
    def make(align: int) -> Any:
        top_k = min(2, number)
        return (number - 1 - np.arange(6)[:, None] * 3 - np.arange(top_k)) % number

    _permuted(
        f"experts:{number}",
        f"{number} experts",
        lambda due: due.counts.size == number and due.counts[-1] > 0,
        number,
        make,
    )


for _number in (0, 1, 31, 33, 257, 4097):
    _of_tokens(_number)
for _number in (1, 2, 60, 257, 300, 1030):
    _of_experts(_number)


def _mixes_absent(absent: Bools) -> bool:
    return bool((absent.any(axis=1) & ~absent.all(axis=1)).any())


def _distinct(due: Due) -> bool:
    weights = due.routes.weights.reshape(-1)[due.present]
    return weights.size > 1 and np.unique(weights).size == weights.size

"""Smaller calls of experts: fewer columns and rows of the weights first, then fewer tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.generators.reducer import Reduction, attempt, subsets
from moe_routing.conformance.generators.sizes import Size
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.formats import INPUT_FORMATS, Ids
from moe_routing.reference.routes import ABSENT

CaseT = TypeVar("CaseT", bound=AnyCase)

_AXES = {
    "hidden": {
        **{"hidden": 1, "gate_weight": 2, "up_weight": 2, "down_weight": 1, "down_bias": 1},
        "cotangent": 1,
    },
    "width": {"gate_weight": 1, "up_weight": 1, "down_weight": 2, "gate_bias": 1, "up_bias": 1},
    "tokens": {"hidden": 0, "expert_ids": 0, "weights": 0, "cotangent": 0, "home": 0},
    "slots": {"expert_ids": 1, "weights": 1},
    "experts": dict.fromkeys(OF_EXPERTS, 0),
}
"""The axis of each array that a size is."""


def keep(case: CaseT, size: str, kept: Ids) -> CaseT:
    """Return the case with these alone of one of its sizes. Errors: ``ValueError`` for none."""
    arrays = case.inputs.arrays()
    axes = {name: axis for name, axis in _AXES[size].items() if name in arrays}
    cut: dict[str, Any] = {n: np.take(arrays[n], kept, axis=axis) for n, axis in axes.items()}
    return replace(case, inputs=with_changes(case.inputs, **cut))


def keep_experts(case: ExpertsCase, kept: Ids) -> ExpertsCase:
    """Return the case with these experts, and the tokens that go to no other."""
    number = np.full(case.config.num_experts + 1, ABSENT)
    number[kept] = np.arange(len(kept))
    ids = case.inputs.expert_ids
    stays = np.flatnonzero(((ids == ABSENT) | np.isin(ids, kept)).all(axis=1))
    fewer = keep(case, "tokens", stays)
    ids = number[fewer.inputs.expert_ids]
    arrays = {n: each[kept] for n, each in fewer.inputs.arrays().items() if n in OF_EXPERTS}
    inputs = with_changes(fewer.inputs, expert_ids=ids, **arrays)
    return replace(case, config=replace(case.config, num_experts=len(kept)), inputs=inputs)


def fewer(size: str) -> Reduction:
    """Return the reduction that keeps some of a size."""

    def proposed(case: ExpertsCase) -> Iterator[ExpertsCase]:
        for kept in subsets(_count(case, size)):
            yield from attempt(keep, case, size, kept)

    return proposed


def _count(case: ExpertsCase, size: str) -> int:
    name, axis = next(pair for pair in _AXES[size].items() if pair[0] in case.inputs.arrays())
    return int(case.inputs.arrays()[name].shape[axis])


def _experts(case: ExpertsCase) -> Iterator[ExpertsCase]:
    used = np.unique(case.inputs.expert_ids)
    used = used[used != ABSENT]
    if 0 < used.size < case.config.num_experts:
        yield keep_experts(case, used)
    for kept in subsets(case.config.num_experts):
        yield from attempt(keep_experts, case, kept)


def without_biases(case: ExpertsCase) -> Iterator[ExpertsCase]:
    """Yield the case without its biases, each and all."""
    inputs = case.inputs
    names = [n for n in ("gate_bias", "up_bias", "down_bias") if getattr(inputs, n) is not None]
    if names:
        yield replace(case, inputs=with_changes(inputs, **dict.fromkeys(names)))
    for name in names:
        yield replace(case, inputs=with_changes(inputs, **{name: None}))


def plainer(case: ExpertsCase) -> Iterator[ExpertsCase]:
    """Yield the case with rounder numbers: small integers, then quarters, array by array."""
    form = INPUT_FORMATS[case.dtype]
    for step in (1.0, 0.25):
        for name, array in case.inputs.arrays().items():
            if array.dtype.kind != "f" or name == "weights":
                continue
            with np.errstate(invalid="ignore"):
                plain = form.round(np.rint(array / step) * step).astype(np.float32)
            if not np.array_equal(plain, array, equal_nan=True):
                yield replace(case, inputs=with_changes(case.inputs, **{name: plain}))


EXPERTS_REDUCTIONS: tuple[Reduction, ...] = (
    fewer("hidden"),
    fewer("width"),
    fewer("tokens"),
    fewer("slots"),
    _experts,
    without_biases,
    plainer,
)
"""The reductions of a case of experts, in the order in which they are tried."""

EXPERTS_SIZES = (
    Size(
        name="T",
        count=lambda case: case.num_tokens,
        usual=4,
        keep=lambda case, kept: keep(case, "tokens", kept),
    ),
    Size(name="E", count=lambda case: case.config.num_experts, usual=4, keep=keep_experts),
    Size(
        name="K",
        count=lambda case: case.inputs.top_k,
        usual=2,
        keep=lambda case, kept: keep(case, "slots", kept),
    ),
)
"""The sizes of a case of experts that a failure may begin at."""

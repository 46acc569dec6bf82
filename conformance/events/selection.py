"""Events of selection: ties, biases, winners."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moe_routing.conformance.case import Case
from moe_routing.conformance.events.registry import EVENTS, ROWS, event, selected
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference.groups import kept_experts
from moe_routing.reference.selection import top_k as best_experts


def _ranked(bounds: Bounds) -> np.ndarray:
    """Return the competing values of judged tokens, greatest first."""
    return -np.sort(-bounds.reference.competing[bounds.judged], axis=1)


def _ties_at_cut(bounds: Bounds) -> bool:
    k, ranked = bounds.config.top_k, _ranked(bounds)
    if k >= bounds.config.num_experts or bounds.inputs.expert_table is not None:
        return False
    return bool((ranked[:, k - 1] == ranked[:, k]).any())


@event("tie-at-cut", "two experts tie exactly where selection cuts", _ties_at_cut)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, [[2.0, 1.0, 1.0, 0.0], [0.5] * 4], top_k=2)
    yield from table_cases(capabilities, [[2.0, 1.0, 1.0, 0.0], [0.5] * 4], top_k=1)


@event(
    "clear-winners",
    "tokens whose right set of experts is unique",
    lambda b: bool(b.only_reference.any()) and b.config.top_k < b.config.num_experts,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, ROWS, top_k=2)
    yield from table_cases(capabilities, ROWS, top_k=1)


def _unbiased_ids(bounds: Bounds) -> np.ndarray:
    groups, scores = bounds.config.groups, bounds.reference.scores
    kept = kept_experts(groups, scores)
    return best_experts(
        np.where(kept, scores, groups.fill) if groups else scores, bounds.config.top_k
    )


def _bias_decides(bounds: Bounds) -> bool:
    if bounds.inputs.selection_bias is None:
        return False
    with_bias = np.sort(bounds.reference.expert_ids, axis=1)
    without = np.sort(_unbiased_ids(bounds), axis=1)
    return bool(((with_bias != without).any(axis=1) & bounds.only_reference).any())


@event("bias-decides", "the selection bias changes which experts win", _bias_decides)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(
        capabilities,
        [[2.0, 1.0, 0.0, -1.0], [1.0, 2.0, -1.0, 0.0]],
        top_k=2,
        selection_bias=[0.0, 0.0, 1.0, 1.5],
    )
    yield from table_cases(
        capabilities, [[2.0, 0.0], [0.5, 0.0]], top_k=1, selection_bias=[0.0, 2.5]
    )


def _bias_on(place: str) -> None:
    def occurs(bounds: Bounds) -> bool:
        return bounds.inputs.selection_bias_on == place and _bias_decides(bounds)

    @event(f"bias-on-{place}", f"a deciding selection bias on the {place}", occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        narrowed = capabilities.narrowed(selection_bias=(place,))
        yield from EVENTS["bias-decides"].cases(narrowed)


for _place in ("gate", "block", "statics"):
    _bias_on(_place)


@event(
    "fine-bias",
    "a selection bias that bfloat16 cannot tell apart decides",
    lambda b: (
        _bias_decides(b)
        and bool((np.diff(np.sort(_finite(b.inputs.selection_bias))) < 2.0**-7).any())
        and float(np.abs(_finite(b.inputs.selection_bias)).min(initial=np.inf)) >= 1.0
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    bias = [1.0, 1.0 + 2.0**-10, 1.0 + 3 * 2.0**-10, 1.0 + 2.0**-9]
    yield from table_cases(capabilities, [[0.5] * 4], top_k=1, selection_bias=bias)
    yield from table_cases(capabilities, [[0.5] * 4], top_k=2, selection_bias=bias)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


@event(
    "offset-bias",
    "a selection bias of 7 or more with a tiny spread",
    lambda b: (
        b.inputs.selection_bias is not None
        and bool((_finite(b.inputs.selection_bias) >= 6.5).all())
        and _finite(b.inputs.selection_bias).size > 1
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    bias = [12.0, 12.0 + 2.0**-9, 12.0, 12.0 - 2.0**-9]
    rows = [[-8.0, -9.0, -10.0, -8.5], [1.0, 0.0, 2.0, -1.0]]
    yield from table_cases(capabilities, rows, top_k=2, selection_bias=bias)
    yield from table_cases(capabilities, rows, top_k=1, selection_bias=bias)


@event(
    "negative-scores-win",
    "the winning biased scores are all negative",
    lambda b: bool((selected(b, b.reference.biased)[b.judged] < 0).all(axis=1).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[2.0, 1.0, 0.0, -1.0], [-2.0, -1.0, -3.0, -4.0]]
    bias = [-1.5, -1.625, -1.75, -1.5]
    yield from table_cases(capabilities, rows, top_k=2, selection_bias=bias)
    yield from table_cases(capabilities, rows, top_k=1, selection_bias=bias)
    yield from table_cases(capabilities, [[-2.0, -1.0, -3.0, -4.0]], top_k=2)


def _zero_bias(bounds: Bounds) -> bool:
    bias = bounds.inputs.selection_bias
    return bias is not None and not bias.any() and bounds.inputs.num_tokens > 0


@event("zero-bias", "a selection bias of zeros", _zero_bias)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, ROWS, top_k=2, selection_bias=[0.0] * 4)
    yield from table_cases(capabilities, ROWS, top_k=1, selection_bias=[0.0] * 4)


def _winner_above(least: int) -> None:
    @event(
        f"winner-above-{least}",
        f"an expert with an id above {least} wins",
        lambda b: bool((b.reference.expert_ids > least).any()),
    )
    def _(capabilities: Capabilities) -> Iterator[Case]:
        size = least + 1 + (least + 1) % 2 + 2
        rows = np.zeros((2, size), np.float32)
        rows[0, -1], rows[0, 0], rows[1, least + 1], rows[1, 1] = 4.0, 3.0, 4.0, 3.0
        for top_k in (2, 1):
            yield from table_cases(capabilities, rows, top_k=top_k)


for _least in (31, 127, 255, 511):
    _winner_above(_least)


@event(
    "every-expert-wins",
    "every expert wins for some token",
    lambda b: len(np.unique(b.reference.expert_ids)) == b.config.num_experts > b.config.top_k,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for experts in (5, 6, 8, 16):
        rows = np.where(np.eye(experts), 3.0, 0.25 * (np.arange(experts) % 3))
        for top_k in (1, 2):
            yield from table_cases(capabilities, rows, top_k=top_k)


@event(
    "all-experts-selected",
    "K equals E",
    lambda b: b.config.top_k == b.config.num_experts > 1 and b.inputs.num_tokens > 0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, ROWS, top_k=4)
    yield from table_cases(capabilities, ROWS, top_k=4, groups=(2, 2))
    yield from table_cases(capabilities, np.tile(ROWS, 2), top_k=8)

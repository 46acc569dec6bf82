"""Events of the selection bias: where it is, what it decides, what it must not affect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.again import cases_of
from moe_routing.conformance.events.registry import EVENTS, ROWS, event, selected
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference import weights
from moe_routing.reference.formats import Floats, Ids
from moe_routing.reference.groups import group_scores, kept_experts
from moe_routing.reference.selection import top_k as best_experts
from moe_routing.reference.selection import top_of_each


@event(
    "no-bias",
    "no selection bias",
    lambda b: b.inputs.selection_bias is None and b.inputs.num_tokens > 0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 1):
        yield from table_cases(capabilities, ROWS, top_k=top_k, wants={"selection_bias": "none"})


def _unbiased_ids(bounds: Bounds) -> Ids:
    groups, scores = bounds.config.groups, bounds.reference.scores
    if groups is not None and groups.from_each:
        return top_of_each(scores, bounds.config.top_k, groups.count)
    if groups is not None:
        kept = kept_experts(groups, group_scores(groups, scores), bounds.config.num_experts)
        scores = np.where(kept, scores, groups.fill)
    return best_experts(scores, bounds.config.top_k)


def bias_decides(bounds: Bounds) -> bool:
    """Return whether the selection bias changes which experts a right router selects."""
    if bounds.inputs.selection_bias is None:
        return False
    with_bias = np.sort(bounds.reference.expert_ids, axis=1)
    without = np.sort(_unbiased_ids(bounds), axis=1)
    return bool(((with_bias != without).any(axis=1) & bounds.only_reference).any())


@event("bias-decides", "the selection bias changes which experts win", bias_decides)
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
        return bounds.inputs.selection_bias_on == place and bias_decides(bounds)

    @event(f"bias-on-{place}", f"a deciding selection bias on the {place}", occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        narrowed = capabilities.narrowed(selection_bias=(place,))
        yield from cases_of("bias-decides", narrowed)


for _place in ("gate", "block", "statics"):
    _bias_on(_place)


@event(
    "fine-bias",
    "a selection bias that bfloat16 cannot tell apart decides",
    lambda b: (
        bias_decides(b)
        and bool((np.diff(np.sort(_finite(b.inputs.selection_bias))) < 2.0**-7).any())
        and float(np.abs(_finite(b.inputs.selection_bias)).min(initial=np.inf)) >= 1.0
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    bias = [1.0, 1.0 + 2.0**-10, 1.0 + 3 * 2.0**-10, 1.0 + 2.0**-9]
    wide = {"dtypes": lambda dtypes: dtypes[1] == "float32"}
    for wants in ({}, wide):
        for top_k in (1, 2):
            yield from table_cases(
                capabilities, [[0.0] * 4], top_k=top_k, wants=wants, selection_bias=bias
            )


def _finite(bias: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    finite: npt.NDArray[np.float32] = bias[np.isfinite(bias)]
    return finite


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


def _weights_off(bounds: Bounds, scores: Floats, share: float) -> bool:
    """Return whether weights gathered from other scores would be off by a share of themselves."""
    config, inputs, reference = bounds.config, bounds.inputs, bounds.reference
    if not config.weights_from.endswith("scores") or inputs.expert_table is not None:
        return False
    ids = reference.expert_ids
    with np.errstate(all="ignore"):
        wrong = weights.gather_weights(config, reference.operated, scores, reference.kept, ids)
        wrong = weights.scale(config, inputs, weights.renormalize(config.renormalize, wrong), ids)
        off = np.abs(wrong - reference.weights) > np.abs(reference.weights) * share
    return bool(off[bounds.only_reference].any())


@event(
    "bias-would-show-in-weights",
    "a deciding selection bias that would show in weights gathered with it",
    lambda b: bias_decides(b) and _weights_off(b, b.reference.biased, 1 / 8),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from cases_of("bias-decides", capabilities)


def _drowns_scores(bounds: Bounds) -> bool:
    bias = bounds.inputs.selection_bias
    if bias is None or not np.isfinite(bias).all():
        return False
    stored = bounds.reference.biased.astype(np.float32)
    return _weights_off(bounds, (stored - bias).astype(np.float64), 1e-3)


@event(
    "bias-drowns-scores",
    "a selection bias that, added and taken off in float32, leaves weights off by a thousandth",
    _drowns_scores,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    bias = [12.0, 12.25, 12.5, 0.0]
    for rows in ([[-8.0, -9.5, -9.0, -8.5]], [[-8.0, -9.5, -9.0, 2.0]]):
        for top_k in (2, 1):
            yield from table_cases(capabilities, rows, top_k=top_k, selection_bias=bias)


def _blurs_scores(bounds: Bounds) -> bool:
    bias, stages = bounds.inputs.selection_bias, bounds.reference
    if bias is None or bounds.inputs.num_tokens == 0:
        return False
    with np.errstate(invalid="ignore"):
        left = (stages.biased.astype(np.float32) - bias).astype(np.float64)
        blurred = np.abs(left - stages.scores) > stages.scores * 2.0**-22
    cut = selected(bounds, stages.competing).min(axis=1, keepdims=True)
    near = stages.competing >= cut - np.maximum(np.abs(cut), 1.0) * 2.0**-20  # it may win a tie
    return bool((blurred & near)[bounds.judged].any())


@event(
    "bias-blurs-scores",
    "a selection bias that, added and taken off in float32, leaves a winner's score off by 2**-22",
    _blurs_scores,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from cases_of("bias-drowns-scores", capabilities)


@event(
    "fine-bias-beside-16-bits",
    "a selection bias that bfloat16 cannot tell apart decides, with inputs in 16 bits",
    lambda b: b.inputs.dtype != "float32" and EVENTS["fine-bias"].occurs(b),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from cases_of("fine-bias", capabilities)


def _masked(slug: str, statement: str, bias: Sequence[float], test: _Test) -> None:
    """Register an event of the number of experts, of E and K, whose bias is not -inf."""

    def occurs(bounds: Bounds) -> bool:
        actual = bounds.inputs.selection_bias
        if actual is None or bounds.inputs.num_tokens == 0:
            return False
        finite = int(np.isfinite(actual).sum())
        return finite < len(actual) and test(finite, bounds.config.top_k)

    @event(slug, statement, occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        for top_k in (2, 1):
            yield from table_cases(capabilities, ROWS, top_k=top_k, selection_bias=bias)


_Test = Callable[[int, int], bool]
_NEVER = float("-inf")
_masked(
    "masked-bias",
    "a selection bias of -inf for some experts, K or more left",
    [0.5, _NEVER, 0.0, 0.25],
    lambda finite, k: finite >= k,
)
_masked(
    "few-finite-bias",
    "a selection bias of -inf for all but fewer than K experts",
    [_NEVER, 0.25, _NEVER, _NEVER],
    lambda finite, k: finite < k,
)
_masked(
    "one-finite-bias",
    "a selection bias of -inf for all experts but one",
    [_NEVER, 0.25, _NEVER, _NEVER],
    lambda finite, k: finite == 1,
)

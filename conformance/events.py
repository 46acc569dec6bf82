"""Events: the conditions that a clause must have witnessed before its pass means anything.

Each event is a fact about a case, read off the reference and its bounds, never off the
backend's answer. Each has a constructor: cases that show it, the plainest first, built
from a backend's claims. An event that no constructed case shows is unreachable there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from moe_routing.conformance.case import Case, SharedCase
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import FLOAT32
from moe_routing.reference.groups import kept_experts
from moe_routing.reference.selection import top_k


@dataclass(frozen=True, kw_only=True)
class Event:
    """One condition: a slug, what it says, how to see it, and how to bring it about."""

    slug: str
    statement: str
    occurs: Callable[[Bounds], bool]
    cases: Callable[[Capabilities], Iterable[Case]]

    def constructed(self, capabilities: Capabilities) -> Case | None:
        """Return the plainest case under ``capabilities`` that shows the event, or None."""
        for case in self.cases(capabilities):
            if self.occurs(Bounds(case.config, case.inputs, capabilities.numerics)):
                return case
        return None


EVENTS: dict[str, Event] = {}
"""Every event by its slug."""


def _event(slug: str, statement: str, occurs: Callable[[Bounds], bool]):
    """Register the decorated constructor with its event."""

    def register(cases: Callable[[Capabilities], Iterator[Case]]):
        EVENTS[slug] = Event(slug=slug, statement=statement, occurs=occurs, cases=cases)
        return cases

    return register


def _selected(bounds: Bounds, values: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, bounds.reference.expert_ids, axis=1)


def _ranked(bounds: Bounds) -> np.ndarray:
    """Return the competing values of judged tokens, greatest first."""
    return -np.sort(-bounds.reference.competing[bounds.judged], axis=1)


def _ties_at_cut(bounds: Bounds) -> bool:
    k, ranked = bounds.config.top_k, _ranked(bounds)
    if k >= bounds.config.num_experts or bounds.inputs.expert_table is not None:
        return False
    return bool((ranked[:, k - 1] == ranked[:, k]).any())


@_event("any-case", "any claimed call", lambda b: b.inputs.num_tokens > 0)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0], [-1.0, 0.75, 2.5, 0.25]]
    yield from table_cases(capabilities, rows, top_k=2)
    yield from table_cases(capabilities, rows, top_k=1)


@_event("tie-at-cut", "two experts tie exactly where selection cuts", _ties_at_cut)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, [[2.0, 1.0, 1.0, 0.0], [0.5] * 4], top_k=2)
    yield from table_cases(capabilities, [[2.0, 1.0, 1.0, 0.0], [0.5] * 4], top_k=1)


@_event(
    "clear-winners",
    "tokens whose right set of experts is unique",
    lambda b: bool(b.only_reference.any()) and b.config.top_k < b.config.num_experts,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0], [-1.0, 0.75, 2.5, 0.25]]
    yield from table_cases(capabilities, rows, top_k=2)
    yield from table_cases(capabilities, rows, top_k=1)


def _unbiased_ids(bounds: Bounds) -> np.ndarray:
    groups, scores = bounds.config.groups, bounds.reference.scores
    kept = kept_experts(groups, scores)
    return top_k(np.where(kept, scores, groups.fill) if groups else scores, bounds.config.top_k)


def _bias_decides(bounds: Bounds) -> bool:
    if bounds.inputs.selection_bias is None:
        return False
    with_bias = np.sort(bounds.reference.expert_ids, axis=1)
    without = np.sort(_unbiased_ids(bounds), axis=1)
    return bool(((with_bias != without).any(axis=1) & bounds.only_reference).any())


@_event("bias-decides", "the selection bias changes which experts win", _bias_decides)
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

    @_event(f"bias-on-{place}", f"a deciding selection bias on the {place}", occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        narrowed = capabilities.narrowed(selection_bias=(place,))
        yield from EVENTS["bias-decides"].cases(narrowed)


for _place in ("gate", "block", "statics"):
    _bias_on(_place)


@_event(
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


@_event(
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


@_event(
    "negative-scores-win",
    "the winning biased scores are all negative",
    lambda b: bool((_selected(b, b.reference.biased)[b.judged] < 0).all(axis=1).any()),
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


@_event("zero-bias", "a selection bias of zeros", _zero_bias)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=2, selection_bias=[0.0] * 4)
    yield from table_cases(capabilities, rows, top_k=1, selection_bias=[0.0] * 4)


def _winner_above(least: int) -> None:
    @_event(
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


@_event(
    "every-expert-wins",
    "every expert wins for some token",
    lambda b: len(np.unique(b.reference.expert_ids)) == b.config.num_experts > b.config.top_k,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for experts in (5, 6, 8, 16):
        rows = np.where(np.eye(experts), 3.0, 0.25 * (np.arange(experts) % 3))
        for top_k in (1, 2):
            yield from table_cases(capabilities, rows, top_k=top_k)


@_event(
    "all-experts-selected",
    "K equals E",
    lambda b: b.config.top_k == b.config.num_experts > 1 and b.inputs.num_tokens > 0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=4)
    yield from table_cases(capabilities, rows, top_k=4, groups=(2, 2))


def _groups_exclude(bounds: Bounds) -> bool:
    if bounds.config.groups is None:
        return False
    biased, kept = bounds.reference.biased, bounds.reference.kept
    least = _selected(bounds, biased).min(axis=1)
    better = np.where(kept, -np.inf, biased).max(axis=1) > least
    return bool((better & bounds.only_reference).any())


@_event("group-excludes-better", "an excluded group holds a better expert", _groups_exclude)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25], [3.0, -6.0, 2.0, 1.5, 0.0, 0.0, 0.0, 0.0]]
    yield from table_cases(capabilities, rows, top_k=2, groups=(4, 1))
    yield from table_cases(capabilities, rows, top_k=3, groups=(4, 2))
    rows = [[2.5, -6.0, -6.0, 2.0, 1.9375, 1.0, 0.0, 0.0]]
    yield from table_cases(capabilities, rows, top_k=3, groups=(2, 1))


@_event(
    "max-and-sum-disagree",
    "the group with the best expert is not the one with the best two",
    lambda b: (
        b.config.groups is not None
        and b.config.groups.top > 1
        and b.config.experts_per_group > 1
        and _best_group_differs(b)
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[2.5, -6.0, 2.0, 1.9375, 0.0, 0.0, 0.0, 0.0]]
    yield from table_cases(capabilities, rows, top_k=2, groups=(4, 1))
    yield from table_cases(capabilities, rows, top_k=1, groups=(4, 1))


def _best_group_differs(bounds: Bounds) -> bool:
    groups, biased = bounds.config.groups, bounds.reference.biased[bounds.only_reference]
    if groups.kept == groups.count:
        return False
    best = biased.reshape(len(biased), groups.count, -1).max(axis=2)
    kept = bounds.reference.kept[bounds.only_reference][:, :: bounds.config.experts_per_group]
    return bool((~np.take_along_axis(kept, best.argmax(axis=1)[:, None], axis=1)).any())


def _below_fill(bounds: Bounds) -> bool:
    """Tell whether an expert that must win cannot be sure to beat a fill of 0.0."""
    groups = bounds.config.groups
    if groups is None or groups.kept == groups.count:
        return False
    least = _selected(bounds, bounds.from_reference.competing.lo).min(axis=1, initial=np.inf)
    return bool(((least <= 0.0) & bounds.judged).any())


@_event(
    "kept-score-below-fill", "a winner's biased score may be 0 or less, among groups", _below_fill
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[2.0, 1.75, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]]
    yield from table_cases(
        capabilities, rows, top_k=2, groups=(4, 1), selection_bias=[-1.5] * 8
    )
    yield from table_cases(capabilities, [[0.0] + [-200.0] * 7], top_k=2, groups=(4, 1))


@_event(
    "group-smaller-than-top",
    "groups with fewer experts than their score sums",
    lambda b: (
        b.config.groups is not None
        and b.config.groups.count > 1
        and b.config.experts_per_group < b.config.groups.top
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=2, groups=(4, 2))


@_event(
    "one-group", "a single group", lambda b: b.config.groups is not None and b.config.groups.count == 1
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=2, groups=(1, 1))


@_event(
    "all-groups-kept",
    "several groups, all kept",
    lambda b: b.config.groups is not None and b.config.groups.count == b.config.groups.kept > 1,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=2, groups=(2, 2))


@_event(
    "exact-logits",
    "logits of several terms that no order of summation rounds",
    lambda b: bool(b.logits.exact.any()) and b.inputs.num_tokens > 0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from EVENTS["any-case"].cases(capabilities)


def _part_decides(name: str) -> Callable[[Bounds], bool]:
    def occurs(bounds: Bounds) -> bool:
        if getattr(bounds.inputs, name) is None:
            return False
        plain = Bounds(bounds.config, replace(bounds.inputs, **{name: None}), bounds.numerics)
        a = np.sort(bounds.reference.expert_ids, axis=1)
        b = np.sort(plain.reference.expert_ids, axis=1)
        sure = bounds.only_reference & plain.only_reference
        return bool(((a != b).any(axis=1) & sure).any())

    return occurs


@_event("delta-decides", "the LoRA delta changes which experts win", _part_decides("gate_delta"))
def _(capabilities: Capabilities) -> Iterator[Case]:
    delta = np.zeros((4, 4), np.float32)
    delta[3, 0], delta[2, 1] = 2.0, 4.0
    for top_k in (1, 2):
        yield from table_cases(
            capabilities,
            [[2.0, 1.0, 0.0, -1.0], [0.0, 2.0, -1.0, -2.0]],
            top_k=top_k,
            gate_delta=delta,
        )


@_event("gate-bias-decides", "the linear bias changes which experts win", _part_decides("gate_bias"))
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (1, 2):
        yield from table_cases(
            capabilities,
            [[2.0, 1.0, 0.0, -1.0], [1.0, 2.0, -1.0, 0.0]],
            top_k=top_k,
            gate_bias=[0.0, 0.0, 4.0, 5.0],
        )


@_event(
    "experts-scaled-apart",
    "experts with scales of their own, one of them negative",
    lambda b: (
        b.inputs.per_expert_scale is not None
        and bool((_selected_scale(b) < 0).any())
        and len(np.unique(b.inputs.per_expert_scale)) > 1
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    scales = [0.5, 2.0, -1.0, -1.5]
    for top_k in (2, 1):
        yield from table_cases(
            capabilities,
            [[1.0, 0.25, -0.5, 2.0]],
            top_k=top_k,
            wants={"optional arrays": lambda parts: "per_expert_scale" in parts},
            per_expert_scale=scales,
        )


def _selected_scale(bounds: Bounds) -> np.ndarray:
    return bounds.inputs.per_expert_scale[bounds.reference.expert_ids]


@_event(
    "weights-apart",
    "weights of one token that differ from each other",
    lambda b: bool((np.ptp(b.reference.weights[b.judged], axis=1) > 0).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from EVENTS["any-case"].cases(capabilities)


@_event(
    "renormalized",
    "weights renormalised over two experts or more",
    lambda b: b.config.renormalize is not None and b.config.top_k > 1 and b.inputs.num_tokens > 0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]]
    wants = {"renormalize": lambda rule: rule is not None}
    yield from table_cases(capabilities, rows, top_k=2, wants=wants)


@_event(
    "not-renormalized",
    "weights that are scores",
    lambda b: b.config.renormalize is None and b.inputs.num_tokens > 0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]]
    for top_k in (2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k, wants={"renormalize": None})


@_event(
    "tiny-norm",
    "selected scores that sum to less than 1e-12 before renormalisation",
    lambda b: (
        b.config.renormalize is not None
        and bool((b.reference.gathered[b.judged].sum(axis=1) < 1e-12).any())
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"renormalize": lambda rule: rule is not None}
    for top_k in (2, 1):
        yield from table_cases(capabilities, [[-40.0, -44.0, -48.0, -60.0]], top_k=top_k, wants=wants)


def _scaled(slug: str, statement: str, test: Callable[[float], bool]) -> None:
    @_event(slug, statement, lambda b: test(b.config.scale) and b.inputs.num_tokens > 0)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]]
        for top_k in (2, 1):
            yield from table_cases(capabilities, rows, top_k=top_k, wants={"scale": test})


_scaled("scaled", "a routed scaling factor other than 0 and 1", lambda scale: scale not in (0.0, 1.0))
_scaled("scaled-by-zero", "a routed scaling factor of 0", lambda scale: scale == 0.0)


@_event(
    "saturated",
    "scores that all round to 1 though the logits differ",
    lambda b: (
        b.config.score == "sigmoid"
        and bool((FLOAT32.round(b.reference.scores) == 1.0).all(axis=1).any())
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"score and weights": lambda pair: pair[0] == "sigmoid"}
    for top_k in (2, 1):
        yield from table_cases(capabilities, [[20.0, 24.0, 18.0, 30.0]], top_k=top_k, wants=wants)


@_event(
    "underflow",
    "a winner whose score is below the normal range of float32",
    lambda b: bool((_selected(b, b.reference.scores)[b.judged] < FLOAT32.tiny).any())
    and b.config.score != "identity",
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 1):
        yield from table_cases(
            capabilities, [[0.0, -150.0, -200.0, -175.0], [-200.0] * 4], top_k=top_k
        )


@_event(
    "large-logits",
    "logits whose exponential overflows float32",
    lambda b: bool((np.abs(b.reference.operated[b.judged]) > 89.0).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[100.0, 120.0, -100.0, 96.0], [1000.0, 992.0, 1016.0, -1000.0]]
    yield from table_cases(capabilities, rows, top_k=2)
    yield from table_cases(capabilities, rows, top_k=1)


@_event("nan-row", "a row of NaN beside good rows", lambda b: _some_nan_rows(b))
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [np.nan] * 4, [0.0, 1.5, 0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=2)
    yield from table_cases(capabilities, rows, top_k=1)


def _some_nan_rows(bounds: Bounds) -> bool:
    bad = np.isnan(bounds.reference.logits).any(axis=1)
    return bool(bad.any() and not bad.all())


@_event(
    "infinite-logit",
    "logits that overflow to infinity",
    lambda b: bool((b.logits.overflows.any(axis=1) & ~np.isnan(b.reference.logits).any(axis=1)).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for dtype, big in (("float16", 60000.0), ("float32", 3e38), ("bfloat16", 2.0**127)):
        if dtype in capabilities.dtypes and capabilities.takes == "hidden":
            yield from _overflowing(capabilities, dtype, big)


def _overflowing(capabilities: Capabilities, dtype: str, big: float) -> Iterator[Case]:
    one = replace(capabilities, dtypes=(dtype,))
    rows = [[1.0, 0.25, -0.5, 2.0], [big, -big, 0.5, 1.0]]
    for top_k in (2, 1):
        for case in table_cases(one, rows, top_k=top_k):
            gate = np.eye(4, dtype=np.float32) * 8.0
            yield replace(case, inputs=replace(case.inputs, gate_weight=gate, logits=None))


@_event(
    "lost-expert",
    "an expert whose logit is -inf",
    lambda b: bool(np.isneginf(b.reference.logits[b.judged]).any()),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, -np.inf, -0.5, 2.0], [0.0, -np.inf, 0.5, -1.0]]
    yield from table_cases(capabilities, rows, top_k=2)
    yield from table_cases(capabilities, rows, top_k=1)


@_event("empty-batch", "no token at all", lambda b: b.inputs.num_tokens == 0)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, np.zeros((0, 4)), top_k=2)
    yield from table_cases(capabilities, np.zeros((0, 4)), top_k=1)


@_event("one-token", "a single token", lambda b: b.inputs.num_tokens == 1)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, [[1.0, 0.25, -0.5, 2.0]], top_k=2)
    yield from table_cases(capabilities, [[1.0, 0.25, -0.5, 2.0]], top_k=1)


def _batch_above(least: int) -> None:
    @_event(
        f"batch-above-{least}", f"more than {least} tokens", lambda b: b.inputs.num_tokens > least
    )
    def _(capabilities: Capabilities) -> Iterator[Case]:
        rows = np.arange((least + 1) * 4).reshape(-1, 4) * 7 % 11 / 4.0
        yield from table_cases(capabilities, rows, top_k=2)
        yield from table_cases(capabilities, rows, top_k=1)


for _least in (8, 16, 256):
    _batch_above(_least)


@_event(
    "strided-input",
    "hidden states that are not laid out in rows",
    lambda b: not b.inputs.hidden.flags.c_contiguous,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0], [-1.0, 0.75, 2.5, 0.25]]
    for top_k in (2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k, spaced=True)


def _of_dtype(dtype: str) -> None:
    @_event(f"{dtype}-input", f"inputs stored in {dtype}", lambda b: b.inputs.dtype == dtype)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        if dtype in capabilities.dtypes:
            yield from EVENTS["any-case"].cases(replace(capabilities, dtypes=(dtype,)))


for _dtype in ("float32", "bfloat16", "float16"):
    _of_dtype(_dtype)


@_event("outside-claims", "a call that the backend does not claim", lambda b: True)
def _(capabilities: Capabilities) -> Iterator[Case]:
    whole = Capabilities(takes=capabilities.takes)
    for slug in (
        "any-case",
        "bias-on-gate",
        "bias-on-block",
        "bias-on-statics",
        "group-excludes-better",
        "gate-bias-decides",
        "delta-decides",
        "experts-scaled-apart",
        "saturated",
        "scaled",
        "not-renormalized",
        "bfloat16-input",
        "float16-input",
    ):
        for case in EVENTS[slug].cases(whole):
            if not capabilities.admits(case.config, case.inputs):
                yield case


def _shared(slug: str, statement: str, **parts: object) -> None:
    @_event(slug, statement, lambda b: True)
    def _(capabilities: Capabilities) -> Iterator[SharedCase]:
        yield make_shared_case(
            dtype=capabilities.dtypes[0], tokens=2, hidden=4, width=2, seed=1, **parts
        )


_shared("shared-singular", "a shared expert as shared_expert", kind="singular", gated=False)
_shared("shared-plural", "shared experts as shared_experts", kind="plural", gated=False)
_shared("shared-mlp", "a shared expert as shared_mlp", kind="mlp", gated=False)
_shared("shared-absent", "no shared expert", kind="none", gated=False)
_shared(
    "shared-gate-half-open",
    "a shared expert whose gate logit is 0",
    kind="singular",
    gated=True,
    zero_gate=True,
)

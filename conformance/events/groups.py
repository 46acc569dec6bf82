"""Events of group-limited selection: which groups are kept, and what that leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import ROWS, event, selected
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.selection import certain_groups, possible_groups
from moe_routing.implementations import Capabilities


def _groups_exclude(bounds: Bounds) -> bool:
    if bounds.config.groups is None:
        return False
    biased, kept = bounds.reference.biased, bounds.reference.kept
    least = selected(bounds, biased).min(axis=1)
    better = np.where(kept, -np.inf, biased).max(axis=1) > least
    return bool((better & bounds.only_reference).any())


@event("group-excludes-better", "an excluded group holds a better expert", _groups_exclude)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25], [3.0, -6.0, 2.0, 1.5, 0.0, 0.0, 0.0, 0.0]]
    yield from table_cases(capabilities, rows, top_k=2, groups=(4, 1))
    yield from table_cases(capabilities, rows, top_k=3, groups=(4, 2))
    rows = [[2.5, -5.0, -6.0, 2.0, 1.9375, 1.0, 0.0, 0.0]]
    yield from table_cases(capabilities, rows, top_k=3, groups=(2, 1))
    yield from table_cases(capabilities, _SUM_WINS, top_k=1, groups=(4, 1))


def _masked_is_excluded(bounds: Bounds) -> bool:
    bias = bounds.inputs.selection_bias
    if bounds.config.groups is None or bias is None:
        return False
    lost = np.isneginf(bias) & ~bounds.reference.kept & bounds.judged[:, None]
    return bool(lost.any())


@event(
    "masked-bias-excluded",
    "a selection bias of -inf for an expert whose group is excluded",
    _masked_is_excluded,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    bias = [0.5, 0.25, -np.inf, -np.inf]
    for top_k in (2, 1):
        yield from table_cases(capabilities, ROWS, top_k=top_k, groups=(2, 1), selection_bias=bias)


_SUM_WINS = [[2.5, -6.0, 2.25, 1.75, 0.0, 0.0, 0.0, 0.0]]
"""Groups of two of which the first has the best expert, and the second the best two."""


@event(
    "groups-mask-logits",
    "an excluded group holds a better expert, and what competes is logits",
    lambda b: (
        b.config.score == "identity" and b.inputs.selection_bias is None and _groups_exclude(b)
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"score and weights": lambda pair: pair[0] == "identity"}
    yield from table_cases(capabilities, _SUM_WINS, top_k=1, groups=(4, 1), wants=wants)
    yield from table_cases(capabilities, _SUM_WINS, top_k=2, groups=(4, 1), wants=wants)


@event(
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
    yield from table_cases(capabilities, _SUM_WINS, top_k=2, groups=(4, 1))
    yield from table_cases(capabilities, _SUM_WINS, top_k=1, groups=(4, 1))


@event(
    "sum-and-max-disagree",
    "groups ranked by their best expert, and another has the best two",
    lambda b: (
        b.config.groups is not None
        and b.config.groups.top == 1
        and b.config.experts_per_group > 1
        and _best_group_differs(b, of=2)
    ),
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k in (2, 1):
        yield from table_cases(
            capabilities, _SUM_WINS, top_k=top_k, groups=(4, 1), wants={"groups.top": 1}
        )


def _best_group_differs(bounds: Bounds, of: int = 1) -> bool:
    """Return whether the group with the greatest sum of its best ``of`` is not kept."""
    groups, biased = bounds.config.groups, bounds.reference.biased[bounds.only_reference]
    if groups is None or groups.kept == groups.count:
        return False
    grouped = (len(biased), groups.count, bounds.config.experts_per_group)
    best = np.sort(biased.reshape(grouped), axis=2)[:, :, -of:].sum(axis=2)
    kept = bounds.reference.kept[bounds.only_reference][:, :: bounds.config.experts_per_group]
    return bool((~np.take_along_axis(kept, best.argmax(axis=1)[:, None], axis=1)).any())


def _share_keeps_others(bounds: Bounds) -> bool:
    """Return whether ranking groups by their best K // kept experts may keep other groups."""
    groups, later = bounds.config.groups, bounds.from_reference
    if groups is None or groups.kept == groups.count:
        return False
    share = bounds.config.top_k // groups.kept
    if share == 0:
        return False
    sure, _ = certain_groups(later.competing, groups, later.group_format)
    may = possible_groups(later.competing, groups, later.group_format)
    shared = replace(groups, top=share)
    sure_shared, _ = certain_groups(later.competing, shared, later.group_format)
    may_shared = possible_groups(later.competing, shared, later.group_format)
    others = (may_shared & ~may) | (sure & ~sure_shared)
    return bool((others.any(axis=1) & bounds.judged).any())


@event(
    "share-keeps-others",
    "groups ranked by their best K // kept experts, and others would be kept",
    _share_keeps_others,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    yield from table_cases(capabilities, _SUM_WINS, top_k=1, groups=(4, 1))
    yield from table_cases(capabilities, _SUM_WINS, top_k=2, groups=(4, 1))
    yield from table_cases(capabilities, _SUM_WINS, top_k=2, groups=(4, 1), wants={"groups.top": 1})


def _below_fill(bounds: Bounds) -> bool:
    """Return whether a fill of 0.0 may win over a finite score that belongs to the K best.

    So the kept groups may hold fewer than K scores above 0, and another that is finite: where
    all others are -inf, they tie with the experts left out, and any of those may be chosen.
    Where near ties leave open which groups are kept, the worst of the possible ones count.
    """
    groups, later = bounds.config.groups, bounds.from_reference
    if groups is None or groups.kept == groups.count:
        return False
    grouped = (len(bounds.judged), groups.count, bounds.config.experts_per_group)
    above = (later.competing.lo > 0.0).reshape(grouped).sum(axis=2)
    finite = (later.competing.lo <= 0.0) & (later.competing.hi > -np.inf)
    certain, _ = certain_groups(later.competing, groups, later.group_format)
    possible = possible_groups(later.competing, groups, later.group_format)
    cost = np.where(certain, -1, np.where(possible, above, bounds.config.num_experts))
    kept = np.argsort(cost, axis=1, kind="stable")[:, : groups.kept]
    least = np.take_along_axis(above, kept, axis=1).sum(axis=1)
    outdone = (finite.reshape(grouped).any(axis=2) & possible).any(axis=1)
    return bool(((least < bounds.config.top_k) & outdone & bounds.judged).any())


@event(
    "kept-score-below-fill",
    "the kept groups may hold fewer than K biased scores above 0, and others that are finite",
    _below_fill,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[2.0, 1.75, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]]
    for top_k in (2, 1):
        yield from table_cases(
            capabilities, rows, top_k=top_k, groups=(4, 1), selection_bias=[-1.5] * 8
        )
        yield from table_cases(capabilities, [[0.0] + [-200.0] * 7], top_k=top_k, groups=(4, 1))


def _excluded_is_chosen(bounds: Bounds) -> bool:
    """Return whether a fill of 0.0 wins where ``masked_scores`` hides a score that is not 0."""
    config, later = bounds.config, bounds.reference
    if config.groups is None or config.weights_from != "masked_scores" or config.groups.fill != 0:
        return False
    ahead = (later.kept & (later.biased >= 0.0)).sum(axis=1)
    hidden = (later.kept | (later.scores != 0.0)).all(axis=1) & ~later.kept.all(axis=1)
    return bool(((ahead < config.top_k) & hidden & bounds.judged).any())


@event(
    "excluded-expert-chosen",
    "an excluded expert is chosen for its fill, and its masked score is 0 where its score is not",
    _excluded_is_chosen,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [[2.0, 1.75, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]]
    wants = {"score and weights": lambda pair: pair[1] == "masked_scores", "groups.fill": 0.0}
    yield from table_cases(
        *(capabilities, rows), top_k=2, groups=(4, 1), wants=wants, selection_bias=[-1.5] * 8
    )


def _second_skips_equals(bounds: Bounds) -> bool:
    groups, stages = bounds.config.groups, bounds.reference
    if groups is None or groups.from_each or groups.top != 2 or stages.group_scores is None:
        return False
    size = bounds.config.num_experts // groups.count
    blocks = stages.biased.reshape(len(stages.biased), groups.count, size)
    best = blocks.max(axis=2, keepdims=True)
    equal = blocks >= best - np.abs(best) * 2.0**-22  # as in float32
    second = np.where(equal, -np.inf, blocks).max(axis=2)
    lost = -(best[:, :, 0] + second).astype(np.float32)
    order = np.argsort(lost, axis=1, kind="stable")[:, : groups.kept]
    kept = np.take_along_axis(stages.kept, order * size, axis=1)
    return not kept[bounds.judged].all()


@event(
    "equals-make-a-group",
    "groups are kept for equal best scores: the next lower one in place of the second loses them",
    _second_skips_equals,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    rows = [
        [1.0, 1.0, -6.0, -6.0, 1.5, -1.0, -6.0, -6.0],
        [1.0, 1.0, 1.5, -1.0, 0.0, -1.0, 0.0, -1.0],
    ]
    for top_k in (2, 1):
        yield from table_cases(capabilities, rows, top_k=top_k, groups=(2, 1))
        yield from table_cases(capabilities, rows, top_k=top_k, groups=(4, 1))


def _keeps_unscored(bounds: Bounds) -> bool:
    scores, groups = bounds.reference.group_scores, bounds.config.groups
    if scores is None or groups is None:
        return False
    finite = np.isfinite(scores).sum(axis=1)
    return bool((finite < groups.kept)[bounds.judged].any())


@event(
    "keeps-excluded-group",
    "a group is kept whose score is -inf, for a selection bias of -inf",
    _keeps_unscored,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    bias = [0.5, -np.inf, 0.25, 0.0]
    for k, groups in ((2, (2, 2)), (2, (1, 1)), (1, (2, 2)), (1, (1, 1))):
        yield from table_cases(capabilities, ROWS, top_k=k, groups=groups, selection_bias=bias)

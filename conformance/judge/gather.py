"""Weights before renormalisation, at the backend's own ids (docs/spec/judging.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.quotients import ScoreBounds
from moe_routing.conformance.judge.scores import sigmoid_bounds
from moe_routing.conformance.judge.softmax import softmax_bounds
from moe_routing.reference import Groups
from moe_routing.reference.formats import Bools, FloatFormat, Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """Weights before renormalisation, as quotients; ``plain`` are the quotients.

    ``own`` are the weights up to a factor of the row: what of their errors is not common to it.
    """

    plain: Interval
    numerators: Interval
    denominator: Interval
    own: Interval
    decided: Bools


def gather(bounds: Bounds, later: SelectionBounds, expert_ids: Ids) -> Gathered:
    """Bound what ``config.weights_from`` names at ``expert_ids [T, K]``, all in range."""
    config, form = bounds.config, bounds.score_format
    ones = Interval.point(np.ones((len(expert_ids), 1)))
    always = np.ones(len(expert_ids), dtype=bool)
    if config.weights_from == "softmax_of_selected":
        logits = later.operated_at(expert_ids)
        selected = selected_softmax(logits, form)
        plain, own = selected.scores, selected.numerators
        some = logits.hi.max(axis=1) != -np.inf  # else 0 / 0
        return Gathered(plain=plain, numerators=plain, denominator=ones, own=own, decided=some)
    if config.weights_from == "sigmoid_of_selected":
        plain = sigmoid_bounds(later.operated_at(expert_ids), form, bounds.numerics)
        return Gathered(plain=plain, numerators=plain, denominator=ones, own=plain, decided=always)
    found = later.scores_at(expert_ids)
    plain, numerators = found.scores, found.numerators
    if config.weights_from == "masked_scores" and config.groups is not None:
        plain, numerators = _masked(config.groups, later, found, expert_ids)
    return Gathered(
        plain=plain,
        numerators=numerators,
        own=numerators,
        denominator=found.denominator,
        decided=always,
    )


def selected_softmax(logits: Interval, form: FloatFormat) -> ScoreBounds:
    """Bound a softmax over the logits of the selected experts, ``[T, K]``."""
    return softmax_bounds(logits, form, selected=True)


def _masked(
    groups: Groups, later: SelectionBounds, found: ScoreBounds, expert_ids: Ids
) -> tuple[Interval, Interval]:
    """Bound masked scores: themselves if the group is certainly kept, 0 if it cannot be, or both.

    Returns the scores and their numerators, ``[T, K]``.
    """
    chosen = expert_ids // (later.config.num_experts // groups.count)
    kept, possible = (np.take_along_axis(each, chosen, axis=1) for each in later.kept_groups)
    plain, numerators = (
        Interval(np.where(kept, each.lo, 0.0), np.where(possible, each.hi, 0.0))
        for each in (found.scores, found.numerators)
    )
    return plain, plain if found.numerators is found.scores else numerators

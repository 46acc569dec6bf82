"""The point first: answers that exact scores choose are right (docs/spec/judging.md).

A router's own logits are points of the intervals that are judged from them, and so is what exact
arithmetic makes of them. Experts that those choose need no intervals.
"""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.later import SelectionBounds
from moe_routing.conformance.judge.selection import chosen_mask, may_select
from moe_routing.reference import RouterConfig
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.groups import group_scores, kept_experts
from moe_routing.reference.logits import logit_op
from moe_routing.reference.scores import SCORE_FUNCTIONS


def chosen_by(config: RouterConfig, later: SelectionBounds, logits: Floats, ids: Ids) -> Bools:
    """Return, per token, whether the exact scores of ``logits [T, E]`` may choose ``ids [T, K]``.

    ``ids`` are distinct and in range where the result is read. True is certain; False may only
    mean that other groups of the same score, or scores within rounding, choose them.
    """
    with np.errstate(all="ignore"):
        values = _competing(config, later, logits)
        if config.groups is not None and config.groups.from_each:
            chosen = chosen_mask(ids, config.num_experts)
            return may_select(Interval.point(values), chosen, config.groups, later.group_format)
        places = np.arange(len(ids))[:, None], ids
        inside, outside = values[places].min(axis=1), values.copy()
        outside[places] = -np.inf
        return np.asarray(inside >= outside.max(axis=1))


def _competing(config: RouterConfig, later: SelectionBounds, logits: Floats) -> Floats:
    """Return what competes; without bias and groups the logits do, whose order is the scores'."""
    values = logit_op(config, logits)
    if later.selection_bias is None and config.groups is None:
        return values
    values = SCORE_FUNCTIONS[config.score](values)
    if later.selection_bias is not None:
        values = values + later.selection_bias
    if config.groups is None or config.groups.from_each:
        return values
    kept = kept_experts(config.groups, group_scores(config.groups, values), config.num_experts)
    return np.where(kept, values, config.groups.fill)


def same_set(one: Ids, other: Ids) -> Bools:
    """Return, per row, whether two lists of experts ``[T, K]`` are the same, in any order."""
    same: Bools = (np.sort(one, axis=1) == np.sort(other, axis=1)).all(axis=1)
    return same

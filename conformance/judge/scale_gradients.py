"""Gradients of the scales of experts: what weights were before them, times the cotangent, summed.

Derivations: docs/spec/judging.md, "Gradients".
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.certain_rows import is_calm
from moe_routing.conformance.judge.gradient_balls import around, scattered, times, undecided
from moe_routing.conformance.judge.gradient_products import sum_over_tokens
from moe_routing.conformance.judge.intervals import Interval, store_unit
from moe_routing.conformance.judge.logit_points import LogitPoints
from moe_routing.conformance.judge.slot_bounds import LESS, SlotBounds
from moe_routing.conformance.judge.weights import weight_bounds
from moe_routing.reference.formats import INPUT_FORMATS, Bools, Floats, Ids, Numbers


def scale_gradient(
    bounds: Bounds, later: SelectionBounds, ids: Ids, cotangent: Floats, judged: Bools
) -> Ball:
    """Return the permitted gradient of each expert's scale, ``[E]``, of rows that are judged."""
    with np.errstate(all="ignore"):
        each = _each(bounds, later, ids, cotangent, judged)
        dense = scattered(each, ids, bounds.config.num_experts, bounds.score_format)
        return sum_over_tokens(dense, INPUT_FORMATS[bounds.inputs.dtype], running=True)


def certainly_scales(
    bounds: Bounds, points: LogitPoints, ids: Ids, cotangent: Floats, given: Numbers
) -> bool:
    """Whether ``given [E]`` certainly is that gradient: within what its summands are off by."""
    form = INPUT_FORMATS[bounds.inputs.dtype]
    later = SlotBounds.of(bounds, points)
    if not (is_calm(bounds, points.logits, ids, cotangent) and later.covers()):
        return False
    with np.errstate(all="ignore"):
        if not later.fine(ids).all():
            return False
        each = _each(bounds, later, ids, cotangent, later.judged)
        point, off, most = (
            np.bincount(ids.reshape(-1), values.reshape(-1), bounds.config.num_experts)
            for values in (each.mid, each.rad, each.reach)
        )
        near = np.abs(given - point) <= LESS * (off + store_unit(form) * np.abs(point))
        return bool(near.all() and most.max() <= form.largest / 8.0)


def _each(
    bounds: Bounds, later: SelectionBounds, ids: Ids, cotangent: Floats, judged: Bools
) -> Ball:
    """Return what each slot adds to the scale of its expert."""
    bare = replace(bounds.inputs, per_expert_scale=None)
    before = weight_bounds(Bounds(bounds.config, bare, bounds.numerics), later, ids)
    open_ = ~(before.decided & judged)[:, None]
    weights = undecided(around(_finite(before.permitted)), open_)
    at = Ball.exact(np.take_along_axis(cotangent, ids, axis=1))
    return times(at, weights, bounds.score_format)


def _finite(permitted: Interval) -> Interval:
    """Return finite bounds as they are, and nothing else."""
    nan = ~(np.isfinite(permitted.lo) & np.isfinite(permitted.hi))
    return Interval(np.where(nan, np.nan, permitted.lo), np.where(nan, np.nan, permitted.hi))

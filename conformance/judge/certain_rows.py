"""Rows of a gradient of logits that certainly are permitted, by the cheapest way that says so.

A line of algebra, the walk at the selected slots, and for the few rows that are left the whole
walk. Derivations: docs/spec/judging.md, "What certainly lies within".
"""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.certain_gradients import kept, points_of
from moe_routing.conformance.judge.intervals import Interval, store_unit
from moe_routing.conformance.judge.logit_gradients import logit_gradients, stored_in
from moe_routing.conformance.judge.logit_points import LogitPoints
from moe_routing.conformance.judge.logits import format_of
from moe_routing.conformance.judge.slot_gradients import slot_gradients
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.formats import Bools, Floats, Ids, Numbers

_LOGIT, _EXPERTS = 64.0, 4096
"""The magnitude of logits, and the number of experts, up to which centres are near enough."""

_MOST = 2.0**30
"""Magnitudes of what comes in, up to which nothing on the way leaves float32."""

FEW = 8
"""The part of all rows of which more are walked with the others, whole."""


def certainly_right(
    bounds: Bounds, logits: Floats, ids: Ids, cotangent: Floats, given: Numbers
) -> bool:
    """Whether ``given [T, E]`` certainly is a permitted gradient of the backend's own ``logits``.

    And all of it decided. False says nothing.
    """
    if not is_calm(bounds, logits, ids, cotangent):
        return False
    near = _by_points(bounds, logits, ids, cotangent, given)
    if near is None:
        near = _by_slots(bounds, logits, ids, cotangent, given)
    if near is None:
        return False
    left = np.flatnonzero(~near)
    if len(left) * FEW > len(near):
        return False
    return not len(left) or _walked(bounds, logits, ids, cotangent, given, left)


def _by_points(
    bounds: Bounds, logits: Floats, ids: Ids, cotangent: Floats, given: Numbers
) -> Bools | None:
    """Return the rows that are near the points of a plain call."""
    points = points_of(bounds, logits, ids, cotangent)
    if points is None:
        return None
    own, form = np.take_along_axis(given, ids, axis=1), stored_in(bounds)
    near = np.abs(own - points.at) <= kept(points.at, points.at_radius, form)
    if points.rest is None or points.rest_radius is None:
        return _others_are_0(given, own) & near.all(axis=1)
    most = kept(points.rest, points.rest_radius, form)
    return near.all(axis=1) & _near(points.rest, most, ids, given)


def _by_slots(
    bounds: Bounds, logits: Floats, ids: Ids, cotangent: Floats, given: Numbers
) -> Bools | None:
    """Return the rows within the balls of ``slot_gradients``."""
    found = slot_gradients(bounds, LogitPoints(logits), ids, cotangent)
    if found is None:
        return None
    own = np.take_along_axis(given, ids, axis=1)
    near = found.fine & found.at.contains(own).all(axis=1)
    if found.rest is None or found.rest_radius is None:
        return near & _others_are_0(given, own)
    return near & _near(found.rest, found.rest_radius, ids, given)


def _others_are_0(given: Numbers, own: Numbers) -> Bools:
    """Return the rows ``[T]`` of ``given [T, E]`` that are 0 but for their ``own [T, K]``."""
    if np.count_nonzero(given) == np.count_nonzero(own):
        return np.ones(len(given), dtype=bool)
    same: Bools = np.count_nonzero(given, axis=1) == np.count_nonzero(own, axis=1)
    return same


def _near(point: Floats, most: Floats, ids: Ids, given: Numbers) -> Bools:
    """Return the rows of which all that no slot holds is within ``most`` of its point."""
    off = given - point
    near = np.abs(off, out=off) <= most
    np.put_along_axis(near, ids, True, axis=1)
    return np.asarray(near.all(axis=1))


def _walked(
    bounds: Bounds, logits: Floats, ids: Ids, cotangent: Floats, given: Numbers, rows: Ids
) -> bool:
    """Whether some rows are right by their whole radius, and decided."""
    some = Bounds(bounds.config, bounds.inputs, bounds.numerics)
    some.__dict__["judged"] = np.ones(len(rows), dtype=bool)
    later: SelectionBounds = some.from_logits(Interval.point(logits[rows]))
    found = logit_gradients(some, later, ids[rows], cotangent[rows])
    return bool(found.decided.all() and found.ball.contains(given[rows]).all())


def is_calm(bounds: Bounds, logits: Floats, ids: Ids, cotangent: Floats) -> bool:
    """Whether nothing that comes in can leave its range, so that all is judged; ids differ."""
    inputs, config = bounds.inputs, bounds.config
    most, bias = _most(cotangent), inputs.selection_bias
    scales = 1.0 if inputs.per_expert_scale is None else _most(inputs.per_expert_scale)
    factor = max(1.0, abs(config.scale) * scales)
    op = max(1.0, abs(config.logit_multiplier))
    limit = _LOGIT / 2.0 if (op, config.logit_softcap) != (1.0, None) else _LOGIT
    formats = format_of(config.logits_dtype, inputs), bounds.score_format
    range_ = min(_MOST**2, *(each.largest / 4.0 for each in formats))
    return (
        bool(logits.size)
        and config.num_experts <= _EXPERTS
        and _most(logits) * op <= limit
        and most * factor * op <= min(_MOST, stored_in(bounds).largest / 8.0)
        and (bias is None or _most(bias) <= _MOST)
        and _reach(config, inputs) * op <= range_
        and not _open_sums(bounds)
        and _distinct(ids)
    )


def _open_sums(bounds: Bounds) -> bool:
    """Whether groups sum scores in a format that sums may leave."""
    groups = bounds.config.groups
    narrow = store_unit(bounds.score_format) > 0.0
    return groups is not None and narrow and bounds.score_format.largest < _MOST


def _most(values: np.ndarray) -> float:
    """Return the greatest magnitude; NaN where one is."""
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))


def _reach(config: RouterConfig, inputs: RouterInputs) -> float:
    """Return at least the magnitudes that a logit sums, and what they are made of."""
    if inputs.logits is not None:
        return _most(inputs.logits)
    gates = [each for each in (inputs.gate_weight, inputs.gate_delta) if each is not None]
    hidden = _most(inputs.hidden)
    if config.input_norm is not None:  # hidden states of norm sqrt(H), and their squares
        scale = 1.0 if inputs.hidden_scale is None else _most(inputs.hidden_scale)
        if not hidden <= _MOST:
            return np.inf
        hidden = max(scale, 1.0)
    products = sum(_most(each) for each in gates) * hidden * inputs.hidden_size
    return products + (0.0 if inputs.gate_bias is None else _most(inputs.gate_bias))


def _distinct(ids: Ids) -> bool:
    ordered = np.sort(ids, axis=1)
    return not (ordered[:, 1:] == ordered[:, :-1]).any()

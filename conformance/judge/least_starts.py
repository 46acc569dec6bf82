"""What products start from where a backend gives no gradient of its logits.

A ball of that gradient within the permitted one, so that what is made of it lies within what is
permitted. Derivations: docs/spec/judging.md, "What certainly lies within".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.certain_rows import FEW, is_calm
from moe_routing.conformance.judge.logit_points import LogitPoints
from moe_routing.conformance.judge.slot_gradients import SlotGradients, slot_gradients
from moe_routing.reference.formats import Floats, Ids


def least_start(
    bounds: Bounds,
    points: LogitPoints,
    ids: Ids,
    cotangent: Floats,
    walk: Callable[[Ids], Ball],
) -> Ball | None:
    """Return a ball ``[T, E]`` within the permitted one, all decided; or None.

    ``walk`` makes the permitted one of a few rows.
    """
    given = bounds.inputs.logits is not None
    if given or not is_calm(bounds, points.logits, ids, cotangent):
        return None
    found = slot_gradients(bounds, points, ids, cotangent)
    if found is None:
        return None
    left = np.flatnonzero(~found.fine)
    if len(left) * FEW > len(ids):
        return None
    ball = _dense(found, ids, points.logits.shape)
    if len(left):
        some = walk(left)
        ball.mid[left], ball.rad[left] = some.mid, some.rad
    return ball if np.isfinite(ball.rad).all() else None


def _dense(found: SlotGradients, ids: Ids, shape: tuple[int, ...]) -> Ball:
    mid = np.zeros(shape) if found.rest is None else found.rest
    rad = np.zeros(shape) if found.rest_radius is None else found.rest_radius
    np.put_along_axis(mid, ids, found.at.mid, axis=1)
    np.put_along_axis(rad, ids, np.broadcast_to(found.at.rad, ids.shape), axis=1)
    return Ball(mid, rad)

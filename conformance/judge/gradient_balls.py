"""What gradients need of balls: from intervals, at slots, and where cancellation is of parts.

Derivations: docs/spec/judging.md, "Gradients".
"""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.ball_sums import total
from moe_routing.conformance.judge.balls import UNIT, Ball, add, div, known, mul, rounded
from moe_routing.conformance.judge.intervals import ROUNDING, Interval, store_unit, underflow
from moe_routing.reference.formats import Bools, FloatFormat, Floats, Ids

ONE = Ball.exact(np.ones((1, 1)))


def around(interval: Interval) -> Ball:
    """Return the smallest ball that holds an interval."""
    return known((interval.lo + interval.hi) / 2.0, (interval.hi - interval.lo) / 2.0)


def ends(a: Ball) -> Interval:
    """Return the interval of the same numbers."""
    return Interval(a.mid - a.rad, a.mid + a.rad)


def constant(value: float, form: FloatFormat) -> Ball:
    """Return a constant of the configuration, stored in ``form``."""
    return rounded(Ball.exact(np.full((1, 1), value)), form)


def at_slots(a: Ball, ids: Ids) -> Ball:
    """Gather the columns ``ids [T, K]`` of each row."""
    return a[np.arange(len(ids))[:, None], ids]


def where(mask: Bools, a: Ball, b: Ball) -> Ball:
    """Take ``a`` where ``mask`` holds and ``b`` elsewhere."""
    return Ball(np.where(mask, a.mid, b.mid), np.where(mask, a.rad, b.rad))


def wider(a: Ball, b: Ball) -> Ball:
    """Return the ball of two honest ways to one number: the greater radius."""
    return Ball(a.mid, np.maximum(a.rad, b.rad))


def turned(a: Ball) -> Ball:
    """Return rows as columns."""
    return Ball(a.mid.mT, a.rad.mT)


def undecided(a: Ball, mask: Bools) -> Ball:
    """Return ``a``, of which nothing is known where ``mask`` holds."""
    if not mask.any():
        return a
    return Ball(a.mid, np.where(mask, np.inf, a.rad))


def within(a: Ball, form: FloatFormat) -> Ball:
    """Return ``a``, of which nothing is known where it may leave the range of ``form``."""
    return undecided(a, ~(a.reach <= form.largest))


def inside(a: Ball, form: FloatFormat) -> Ball:
    """Return ``a``, of which nothing is known within two binades of the end of the range.

    For what is on the way: other code may have it times a constant, such as log2(e).
    """
    return undecided(a, ~(a.reach <= form.largest / 4.0))


def times(a: Ball, b: Ball, form: FloatFormat, count: int = ROUNDING) -> Ball:
    """Return ``a * b``, rounded ``count`` times and stored once."""
    out = mul(a, b, form)
    return inside(rounded(out, form, count - 1, 0) if count > 1 else out, form)


def over(a: Ball, b: Ball, form: FloatFormat) -> Ball:
    """Return ``a / b``; undecided where b may be 0."""
    return inside(div(a, b, form), form)


def less(a: Ball, b: Ball, form: FloatFormat) -> Ball:
    """Return ``a - b``, rounded once."""
    return add(a, -b, form)


def added(a: Ball, form: FloatFormat) -> Ball:
    """Return the sum of each row, ``[T, 1]``, in any order."""
    sums = total(a, form)
    return Ball(sums.mid[:, None], sums.rad[:, None])


def weighted_rest(w: Ball, g: Ball, mean: Ball, form: FloatFormat) -> Ball:
    """Return ``w (g - mean)``, or ``w g - w mean``: roundings of the parts, not of the rest.

    Each product may be stored, and so may w in one of them and not in the other.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        rest = Ball(g.mid - mean.mid, g.rad + mean.rad)
        rad = np.abs(w.mid) * rest.rad + np.abs(rest.mid) * w.rad + w.rad * rest.rad
        both = g.reach + mean.reach
        rad = rad + of_parts(w.reach * both, form, 2 * ROUNDING, 2)
        if (s := store_unit(form)) > 0.0:
            rad = rad + (s * w.reach + underflow(form)) * both
    return inside(known(w.mid * rest.mid, rad), form)


def of_square(least: Floats, factor: Floats, reach: Floats, form: FloatFormat) -> Floats:
    """Return what ``factor s s / s`` loses where ``s s`` underflows, s being ``least`` or more.

    A product that is flushed loses no more than there is; one that is rounded below the normal
    range is off by half of the least number, and 0 where it is below that. Either is multiplied by
    the factor, and by 1 / s.
    """
    half = form.tiny * form.unit_roundoff
    large = np.maximum(factor, 1.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        flushed = underflow(form) * large / np.maximum(least, 0.0)
        lost: Floats = np.fmin(flushed, reach + half * large / np.maximum(least, half**0.5))
    return lost


def of_parts(parts: Floats, form: FloatFormat, count: int, stores: int = 1) -> Floats:
    """Return the error of ``count`` roundings and some stores of numbers as large as ``parts``."""
    zero = Ball(np.zeros_like(parts), parts)
    return rounded(zero, form, count, stores).rad - parts


def scattered(a: Ball, ids: Ids, experts: int, form: FloatFormat) -> Ball:
    """Add the slots of ``a [T, K]`` to their experts, ``[T, E]``; the first one rounds nothing."""
    shape = len(ids), experts
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    mid, rad, size, often = (np.zeros(shape) for _ in range(4))
    radii = np.broadcast_to(a.rad, ids.shape)
    for sums, values in ((mid, a.mid), (rad, radii), (size, a.reach), (often, 1.0)):
        np.add.at(sums, (rows, ids), values)
    again = np.maximum(often - 1.0, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.expm1(again * (UNIT + store_unit(form))) * size + again * underflow(form)
        return known(mid, rad + np.where(again > 0.0, error, 0.0))

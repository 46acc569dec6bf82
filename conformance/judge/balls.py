"""Balls: a centre in float64, and the most that honest arithmetic may be away from it.

Every operation says what one honest operation adds to the radius. Operations run in float32 or
better, in any order, and each result may be stored in a narrower format, or not. An infinite
radius says that nothing is known: the value may overflow, or come from what is not finite.
Sums are in ``ball_sums``. Derivations: docs/spec/judging.md, "Balls".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.intervals import (
    DIVISION,
    ELEMENTARY,
    ROUNDING,
    division,
    elementary,
    store_unit,
    underflow,
)
from moe_routing.conformance.judge.quotients import EXPONENT
from moe_routing.reference import scores
from moe_routing.reference.formats import FLOAT32, Bools, FloatFormat, Floats
from moe_routing.reference.quick import every, some, surely_finite

UNIT, TINY = FLOAT32.unit_roundoff, FLOAT32.tiny


@dataclass(frozen=True, eq=False)
class Ball:
    """Element by element, ``|value - mid| <= rad``; float64 arrays that broadcast together."""

    mid: Floats
    rad: Floats

    @classmethod
    def exact(cls, values: npt.ArrayLike) -> Ball:
        """Return the ball of exactly ``values``; what is not finite is undecided."""
        mid = np.asarray(values, dtype=np.float64)
        return known(mid, np.zeros(mid.shape))

    @property
    def reach(self) -> Floats:
        """The greatest magnitude in the ball."""
        reach: Floats = np.abs(self.mid) + self.rad
        return reach

    @property
    def decided(self) -> Bools:
        """Where something is known."""
        return np.isfinite(self.rad)

    def contains(self, values: npt.ArrayLike) -> Bools:
        """Return where ``values`` are permitted; where nothing is known, all are, NaN too."""
        with np.errstate(invalid="ignore", over="ignore"):
            near: Bools = np.abs(np.asarray(values, dtype=np.float64) - self.mid) <= self.rad
        return near | ~self.decided

    def __getitem__(self, index: Any) -> Ball:
        return Ball(self.mid[index], np.broadcast_to(self.rad, self.mid.shape)[index])

    def __neg__(self) -> Ball:
        return Ball(-self.mid, self.rad)


def known(mid: Floats, rad: Floats) -> Ball:
    """Return a ball, undecided where a centre or a radius is not a number that is finite."""
    if surely_finite(mid) and surely_finite(rad):
        return Ball(mid, rad)
    lost = ~np.isfinite(mid) | np.isnan(rad)
    return Ball(np.where(lost, 0.0, mid), np.where(lost, np.inf, rad))


def rounded(a: Ball, form: FloatFormat, count: float = ROUNDING, stores: int = 1) -> Ball:
    """Allow ``count`` roundings in float32, and ``stores`` in ``form``, of a value of ``a``.

    Where the value may pass the largest number of ``form``, it may be infinite: undecided.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return _rounded(a, form, count, stores)


def settled(a: Ball, form: FloatFormat, count: int = ROUNDING) -> Ball:
    """Allow one correctly rounded operation, or none, and one store: they keep what is held.

    ``a`` is the operation on its operands as they are: its radius is 0 where theirs are.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return _settled(a, form, count)


def held(values: Floats, form: FloatFormat) -> Bools:
    """Return where ``form`` holds ``values`` exactly, and no fast mode flushes them."""
    with np.errstate(over="ignore"):
        return _held(values, form)


def _rounded(a: Ball, form: FloatFormat, count: float, stores: int) -> Ball:
    s, size = store_unit(form), np.abs(a.mid)
    absolute = count * TINY + (stores * underflow(form) if s else 0.0)
    rad = a.rad + math.expm1(count * UNIT + stores * s) * (size + a.rad) + absolute
    past = ~(size + rad <= form.largest)
    return known(a.mid, np.where(past, np.inf, rad)) if some(past) else Ball(a.mid, rad)


def _settled(a: Ball, form: FloatFormat, count: int = ROUNDING) -> Ball:
    """Return what ``settled`` does, where warnings are off already."""
    firm = a.rad == 0.0
    if not some(firm):
        return _rounded(a, form, count, 1)
    kept = firm & _held(a.mid, form)
    if every(kept):  # as nearly always where the inputs of a small case are exact
        return Ball(a.mid, np.zeros(kept.shape))
    out = _rounded(a, form, count, 1)
    return Ball(out.mid, np.where(kept, 0.0, out.rad))


def _held(values: Floats, form: FloatFormat) -> Bools:
    narrow = values.astype(np.float32)
    kept: Bools = (narrow == values) & np.isfinite(values)
    if form.name != FLOAT32.name:
        kept &= form.represents(narrow)
    kept &= (np.abs(values) >= form.tiny) | (values == 0.0)
    return kept


def add(a: Ball, b: Ball, form: FloatFormat) -> Ball:
    """Return the sum of two balls, rounded and stored."""
    with np.errstate(invalid="ignore", over="ignore"):
        return _settled(known(a.mid + b.mid, a.rad + b.rad), form)


def mul(a: Ball, b: Ball, form: FloatFormat) -> Ball:
    """Return the product of two balls, rounded and stored."""
    with np.errstate(invalid="ignore", over="ignore"):
        rad = np.abs(a.mid) * b.rad + np.abs(b.mid) * a.rad + a.rad * b.rad
        return _settled(known(a.mid * b.mid, rad), form)


def times(a: Ball, constant: float, form: FloatFormat) -> Ball:
    """Return the product with a constant that is itself rounded, rounded and stored."""
    return rounded(Ball(a.mid * constant, a.rad * abs(constant)), form, 2 * ROUNDING)


def div(a: Ball, b: Ball, form: FloatFormat) -> Ball:
    """Return the quotient of two balls; undecided where the divisor's ball holds 0."""
    least = np.abs(b.mid) - b.rad
    apart = least > 0.0
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        mid = np.where(apart, a.mid / b.mid, 0.0)
        rad = np.where(apart, (a.rad + np.abs(mid) * b.rad) / least, np.inf)
        out = rounded(known(mid, rad), form, DIVISION, division(form))
        # a reciprocal that underflows errs by so much, and is multiplied by a
        return known(out.mid, out.rad + (TINY + underflow(form)) * a.reach)


def monotone(a: Ball, change: Callable[[Floats], Floats]) -> Ball:
    """Return an exact function that never falls, such as a clamp, at the ends of the ball."""
    with np.errstate(invalid="ignore"):
        mid = change(a.mid)
        rad = np.maximum(change(a.mid + a.rad) - mid, mid - change(a.mid - a.rad))
    return known(mid, np.where(a.decided, rad, np.inf))


def sigmoid(z: Ball, form: FloatFormat) -> Ball:
    """Return ``1 / (1 + exp(-z))``: an exponential, a sum and a quotient.

    Moved by d in its argument, a sigmoid s moves by at most ``s (exp(d) - 1)``, and by d / 4.
    """
    s, value = store_unit(form), scores.sigmoid(z.mid)
    d = EXPONENT * UNIT * z.reach + z.rad + elementary(form) * s
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.minimum(np.minimum(value * np.expm1(d), d / 4.0), 1.0)
    moved = np.where(z.decided, moved, np.inf)
    out = rounded(Ball(value, moved), form, ELEMENTARY + DIVISION + 1, 1 + division(form))
    gone = z.mid - d < -np.log(form.largest)  # exp(-z) may be infinite, and its reciprocal 0
    return known(out.mid, np.where(gone, np.maximum(out.rad, value), out.rad))


def softmax(z: Ball, form: FloatFormat) -> Ball:
    """Return the softmax along the last axis, by a quotient or by the logarithm of the norm.

    With exponents moved by d, a numerator moves by ``exp(d)`` at most, and the norm by the mean
    of the ``exp(d)`` of all, weighted by their shares.
    """
    m = z.mid.max(axis=-1, keepdims=True)
    count = z.mid.shape[-1]
    log, s = np.log(count), store_unit(form)
    d = UNIT * (EXPONENT * (np.abs(z.mid) + np.abs(m)) + (2 + ELEMENTARY) * log) + z.rad
    d = d + s * (2.0 * (m - z.mid) + np.abs(m) + 3.0 * log + elementary(form))
    p = scores.softmax(z.mid)
    units = (2 * ELEMENTARY + count + DIVISION) * UNIT
    units += ((count - 1).bit_length() + 1 + division(form)) * s
    with np.errstate(over="ignore", invalid="ignore"):
        norm = np.log((p * np.exp(d)).sum(axis=-1, keepdims=True))
        rad = np.fmin(p * np.expm1(d + norm + units), 1.0)
    flushed = (2.0 + p * count) * (TINY + underflow(form))
    return known(p, np.where(z.decided.all(axis=-1, keepdims=True), rad + flushed, np.inf))

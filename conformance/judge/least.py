"""Products whose permitted radius is not needed: a fraction of it holds the answer already.

The radius of a product is no less than what the rounding of its sums comes to, and that is no less
than what it comes to for a part of the summands: of one number, of the sum itself. Who lies within
so little lies within the whole. Derivations: docs/spec/judging.md, "What certainly lies within".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.ball_sums import Matrix, bits_of, nonzeros, product
from moe_routing.conformance.judge.balls import UNIT, Ball
from moe_routing.conformance.judge.intervals import store_unit
from moe_routing.reference.formats import FLOAT32, FloatFormat, Floats, Ids, Numbers

Array = npt.NDArray[Any]

_BLOCK, _CACHED = 2**19, 2**16
"""About how many numbers are multiplied, and looked at, together: a cache holds some of these."""

_GREATEST = 4
"""Summands that a lower bound of the magnitudes is the sum of."""

_FEW = 2**10
"""Numbers of a block whose magnitudes are summed one by one, each as a whole."""

HELD = 2.0**FLOAT32.precision
"""Steps of a sum that float32 holds exactly; a sum of greater magnitude is not exact."""

LAST = 2**5
"""The same of those that may be exact, each of which is made a ball of."""

_MANY = 32
"""The part of all numbers from which magnitudes are summed of all, as one product."""

_SAMPLE = 128
"""Numbers of a row whose bits are looked at."""

KEPT = 1.0 - 2.0**-10
"""What is used of a lower bound; the rest is more than float64 loses in it and in the sum."""


def certainly_within(answered: Numbers, a: Floats, matrix: Matrix, form: FloatFormat) -> bool:
    """Whether each number of ``answered [T, N]`` is certainly a product that is permitted.

    The product is ``a @ matrix.rows.T``, summed in float32 in any order and stored in ``form``:
    the ball that ``ball_sums.product`` makes has no lesser radius. False says nothing.
    """
    step = max(1, _BLOCK // max(1, answered.shape[1]))
    rows = [slice(first, first + step) for first in range(0, len(answered), step)]
    return all(_within(answered[some], a[some], matrix, form) for some in rows)


def _within(answered: Numbers, a: Floats, matrix: Matrix, form: FloatFormat) -> bool:
    point, some, store = a @ matrix.rows.T, greatest(a), store_unit(form)
    units = np.minimum(nonzeros(a)[:, None], matrix.least_count[0]) * UNIT
    bits = bits_of(np.take_along_axis(a, some, axis=1))[:, None] * HELD
    if store and _held(answered, form):
        # the next number of the format is further off, so that this sum is none and is stored
        used, quantum = np.full(units.shape, store * KEPT), np.zeros(units.shape)
    else:
        used, quantum = (units + store) * KEPT, bits * matrix.greatest_bit[0]
    places = _others(answered, point, used, quantum)
    for summands in (some, None):
        row, column = places
        least = magnitudes(a, matrix.rows, places, summands)
        off, size = np.abs(answered[places] - point[places]), np.abs(point[places])
        near = off <= KEPT * (units[row, 0] * least + store * size)
        near &= least > bits[row, 0] * matrix.some_bits[column]
        places = row[~near], column[~near]
        if not len(places[0]):
            return True
        if len(places[0]) > _FEW:
            return False
    row, column = places
    return len(row) <= LAST and in_balls(answered[places], a[row], matrix.rows[column], form)


def in_balls(answered: Numbers, a: Array, rows: Array, form: FloatFormat) -> bool:
    """Whether numbers ``[P]`` are within their whole radius: that of rows of ``a`` and ``rows``."""
    for number, one, other in zip(answered, a, rows, strict=True):
        ball = product(Ball.exact(one[None]), other[:, None], form)
        if not (ball.decided & ball.contains(number)).all():
            return False
    return True


def _held(values: Numbers, form: FloatFormat) -> bool:
    """Whether a format holds all of the values, as it does what was stored in it."""
    single = values.astype(np.float32)
    return bool((single == values).all() and form.represents(single).all())


def _others(answered: Numbers, point: Floats, used: Floats, quantum: Floats) -> tuple[Ids, ...]:
    """Return the places that the sums themselves do not say to be right, nor to be exact."""
    step, found = max(1, _CACHED // max(1, point.shape[1])), []
    for first in range(0, len(point), step):
        rows = slice(first, first + step)
        off, allowed = answered[rows] - point[rows], np.abs(point[rows])
        allowed -= quantum[rows]  # what is above it is not exact
        allowed *= used[rows]
        near = np.abs(off, out=off) <= allowed
        if not near.all():
            left = np.flatnonzero(~near)
            found.append(left[off.reshape(-1)[left] != 0.0] + first * point.shape[1])
    flat = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
    return np.divmod(flat, point.shape[1])


def is_inexact(a: Floats, rows: Floats, point: Floats) -> bool:
    """Whether each ``point`` of ``a @ rows.T`` certainly is a sum that some order rounds.

    Or one of nothing: a row of zeros has no sum to round.
    """
    every = max(1, rows.shape[-1] // _SAMPLE)
    bits, others = bits_of(a)[:, None] * HELD, bits_of(rows[:, ::every])
    small = np.abs(point) <= bits * others
    small &= np.asarray(a.any(axis=1))[:, None]
    places = np.nonzero(small)
    if len(places[0]) > small.size // _MANY:
        return False
    least = magnitudes(a, rows, places, greatest(a))
    return bool((least > bits[places[0], 0] * others[places[1]]).all())


def magnitudes(
    a: Array, rows: Array, places: tuple[Ids, ...], summands: Ids | None = None
) -> Floats:
    """Return ``|a| @ |rows.mT|`` at some ``places``, or at most that: of some summands."""
    *row, column = places
    right = (*row[:-1], column)
    if summands is None:
        return np.asarray(np.abs(a[tuple(row)] * rows[right]).sum(axis=-1))
    chosen, total = summands[tuple(row)], np.zeros(len(column))
    for at in chosen.T:
        total += np.abs(a[(*row, at)] * rows[(*right, at)])
    return total


def greatest(a: Array, parts: int = _GREATEST) -> Ids:
    """Return the place of the greatest magnitude in each of some parts of every row."""
    sizes, n = np.abs(a), a.shape[-1]
    step = max(1, -(-n // parts))
    places = [first + sizes[..., first : first + step].argmax(-1) for first in range(0, n, step)]
    return np.stack(places, axis=-1) if places else np.zeros((*a.shape[:-1], 0), dtype=np.int64)

"""Products whose permitted radius is not needed: a fraction of it holds the answer already.

The radius of a product is no less than what the rounding of its sums comes to, and that is no less
than what it comes to for a part of the summands: of one number, of the sum itself. Who lies within
so little lies within the whole. Derivations: docs/spec/judging.md, "What certainly lies within".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moe_routing.conformance.judge.ball_sums import Matrix, bits_of, nonzeros
from moe_routing.conformance.judge.balls import UNIT
from moe_routing.conformance.judge.intervals import store_unit
from moe_routing.reference.formats import FLOAT32, FloatFormat, Floats, Ids

_BLOCK = 2**17
"""About how many numbers are looked at together: a cache holds some arrays of as many."""

_GREATEST = 4
"""Summands that a lower bound of the magnitudes is the sum of."""

_FEW = 2**10
"""Numbers of a block whose magnitudes are summed one by one, each as a whole."""

_HELD = 2.0**FLOAT32.precision
"""Steps of a sum that float32 holds exactly; a sum of greater magnitude is not exact."""

_KEPT = 1.0 - 2.0**-10
"""What is used of a lower bound; the rest is more than float64 loses in it and in the sum."""


def certainly_within(
    answered: Floats, a: Floats, matrix: Matrix, form: FloatFormat, more: float = 0.0
) -> bool:
    """Whether each number of ``answered [..., T, N]`` is certainly a product that is permitted.

    The product is ``a @ matrix.rows.mT``, summed in float32 in any order and stored in ``form``:
    the ball that ``ball_sums.product`` makes has no lesser radius. ``more`` are roundings of every
    summand. False says nothing.
    """
    parts = _parts(answered, a, matrix)
    return all(_within(*part, store_unit(form), more) for part in parts)


def _parts(answered: Floats, a: Floats, matrix: Matrix) -> Iterator[tuple[Floats, Floats, Matrix]]:
    step = max(1, _BLOCK // max(1, answered.shape[-1]))
    for first in range(0, answered.shape[-2], step):
        rows = (..., slice(first, first + step), slice(None))
        yield answered[rows], a[rows], matrix


def _within(answered: Floats, a: Floats, matrix: Matrix, store: float, more: float) -> bool:
    point = a @ matrix.rows.mT
    off = answered - point
    off, size = np.abs(off, out=off), np.abs(point, out=point)
    some = _greatest(a)
    units = np.minimum(nonzeros(a)[..., None], matrix.least_count) * UNIT + more * UNIT
    bits = bits_of(np.take_along_axis(a, some, axis=-1))[..., None] * _HELD
    fine = off <= size * ((units + store) * _KEPT)
    fine &= size > bits * matrix.greatest_bit
    if fine.all():
        return True
    others = np.flatnonzero(~fine)
    others = others[off.reshape(-1)[others] != 0.0]  # a product of what is exactly answered
    places = np.unravel_index(others, off.shape)
    for summands in (some, None):
        row, column = places[:-1], (*places[:-2], places[-1])
        least = magnitudes(a, matrix, places, summands)
        near = off[places] <= _KEPT * (units[row][:, 0] * least + store * size[places])
        near &= least > bits[row][:, 0] * matrix.some_bits[column]
        if near.all():
            return True
        places = tuple(each[~near] for each in places)
        if len(places[0]) > _FEW:
            break
    return False


def magnitudes(
    a: Floats, matrix: Matrix, places: tuple[Ids, ...], summands: Ids | None = None
) -> Floats:
    """Return ``|a| @ |matrix.rows.mT|`` at some ``places``, or at most that: of some summands."""
    *row, column = places
    left, right = a[tuple(row)], (*row[:-1], column)
    if summands is None:
        return np.asarray(np.abs(left * matrix.rows[right]).sum(axis=-1))
    chosen = summands[tuple(row)]
    sizes = np.take_along_axis(left, chosen, axis=-1)
    for k, at in enumerate(chosen.T):
        sizes[:, k] *= matrix.rows[(*right, at)]
    return np.asarray(np.abs(sizes).sum(axis=-1))


def _greatest(a: Floats) -> Ids:
    """Return the places of the greatest magnitudes in some parts of every row, ``[..., T, 4]``."""
    sizes, n = np.abs(a), a.shape[-1]
    step = max(1, -(-n // _GREATEST))
    places = [first + sizes[..., first : first + step].argmax(-1) for first in range(0, n, step)]
    return np.stack(places, axis=-1) if places else np.zeros((*a.shape[:-1], 0), dtype=np.int64)

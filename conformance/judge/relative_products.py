"""Products of numbers that are off themselves, which the least that these are off by shows right.

Each summand is off in proportion to a magnitude, and so is the sum to the magnitudes of some of
them. Derivations: docs/spec/judging.md, "What certainly lies within".
"""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.balls import UNIT
from moe_routing.conformance.judge.least import Array, greatest, magnitudes
from moe_routing.reference.formats import Floats, Ids, Numbers

_CACHED, _BLOCK = 2**16, 2**18
"""About how many numbers are looked at, and multiplied, together: a cache holds some of these."""

_MANY = 16
"""The part of the first numbers that is open, from which all are looked at by their summands."""

_EACH = 2**18
"""Summands of the numbers that are looked at one by one, all of them."""

_PART = 16
"""Summands of each of all numbers that are summed first, where many numbers need some."""

_EVERY, _LONG = 8, 2**8
"""Of how many summands one is of a part that is summed of all numbers, as a product; and the
summands from which that pays.
"""

_HALF_KEPT = 1.0 - 2.0**-4
"""What is used of a radius; the rest is more than sums in float32 lose."""

NORMAL = 2.0**-60
"""The magnitudes from which nothing that underflows counts, of numbers up to ``2^20``."""

_GATHERED = 2**9
"""Products of a matrix, all made at once, in the time of a summand that is picked."""


def within_relative(
    answered: Numbers, point: Array, sizes: Array, rows: Array, units: float, store: float
) -> bool:
    """Whether ``answered`` certainly is ``a @ rows.T``, of numbers that are off themselves.

    Each a may be off by ``units`` of its ``sizes``, which are at least its magnitudes. ``point`` is
    that product, summed in float32, which is off by no more than the permitted sums: these are
    left out, and the point itself is permitted.
    """
    used = (units - 4.0 * UNIT) * _HALF_KEPT
    if point.size > _BLOCK and _leaves_many(answered, point, used, store):
        every = _EVERY if sizes.shape[1] >= _LONG else 1
        return _by_some(answered, point, (sizes, rows), (used, store), every)
    places = _left(answered, point, used, store)
    if not len(places[0]):
        return True
    n, off = sizes.shape[1], _off(answered[places], point[places], store)
    few = len(places[0]) * _GATHERED * 16 <= point.size * n
    if len(places[0]) * n > _EACH and (few or n >= _LONG):
        if few:
            least = magnitudes(sizes, rows, places, greatest(sizes, 16))
        else:
            least = (np.abs(sizes[:, ::_EVERY]) @ np.abs(rows[:, ::_EVERY]).T)[places]
        near = (off <= used * least) & (least >= NORMAL)
        places, off = tuple(each[~near] for each in places), off[~near]
    return _holds(off, used, _whole(sizes, rows, places))


def within_even(
    answered: Numbers, point: Array, sizes: Array, rows: Array, units: float, store: float
) -> bool:
    """Whether the same holds, of summands about alike, some of which say it of most numbers.

    In 16 bits the points alone leave too many open.
    """
    if not store or sizes.shape[1] >= _LONG:
        return within_relative(answered, point, sizes, rows, units, store)
    used, every = (units - 4.0 * UNIT) * _HALF_KEPT, max(1, sizes.shape[1] // _PART)
    return _by_some(answered, point, (sizes, rows), (used, store), every)


def _by_some(
    answered: Numbers,
    point: Array,
    matrices: tuple[Array, Array],
    off_by: tuple[float, float],
    every: int,
) -> bool:
    """Whether all numbers are right: one of ``every`` summands says it, or all of few numbers."""
    (sizes, rows), (used, store) = matrices, off_by
    left, right = np.abs(sizes[:, ::every]), np.abs(rows[:, ::every]).T
    step, found = max(1, _BLOCK // max(1, point.shape[1])), []
    for first in range(0, len(point), step):
        some = slice(first, first + step)
        off, least = answered[some] - point[some], left[some] @ right
        normal = least.min(initial=1.0) >= NORMAL
        least *= used
        if store:
            least += np.abs(point[some]) * ((1.0 - 2.0**-20) * store)
        near = np.abs(off, out=off) <= least
        if not normal:
            near &= left[some] @ right >= NORMAL
        if not near.all():
            found.append(np.flatnonzero(~near) + first * point.shape[1])
    if not found:
        return True
    places = np.divmod(np.concatenate(found), point.shape[1])
    off = _off(answered[places], point[places], store)
    return _holds(off, used, _whole(sizes, rows, places))


def _whole(sizes: Array, rows: Array, places: tuple[Ids, ...]) -> Floats:
    """Return the sums of magnitudes at some places: one by one, or of all."""
    n = sizes.shape[1]
    if len(places[0]) * n <= max(_EACH, len(sizes) * len(rows) * n // _GATHERED):
        return magnitudes(sizes, rows, places)
    whole: Floats = (np.abs(sizes) @ np.abs(rows).T)[places].astype(np.float64)
    return whole


def _leaves_many(answered: Numbers, point: Array, used: float, store: float) -> bool:
    """Whether the points themselves leave many of the first numbers open."""
    first = slice(max(1, _CACHED // max(1, point.shape[1])))
    left, _ = _left(answered[first], point[first], used, store)
    return len(left) * _MANY > point[first].size


def _off(answered: Numbers, point: Array, store: float) -> Floats:
    off: Floats = np.abs(answered - point)
    return off - store * np.abs(point).astype(np.float64) if store else off


def _left(answered: Numbers, point: Array, used: float, store: float) -> tuple[Ids, ...]:
    """Return the places that the point's own magnitude does not say to be right, nor is it."""
    step, found = max(1, _CACHED // max(1, point.shape[1])), []
    least, limit = (1.0 - 2.0**-20) * (used + store), NORMAL
    for first in range(0, len(point), step):
        rows = slice(first, first + step)
        off, size = answered[rows] - point[rows], np.abs(point[rows])
        near = np.abs(off, out=off) <= size * least
        near &= size >= limit
        if not near.all():
            left = np.flatnonzero(~near)
            found.append(left[off.reshape(-1)[left] != 0.0] + first * point.shape[1])
    flat = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
    return np.divmod(flat, point.shape[1])


def _holds(off: Floats, used: float, least: Floats) -> bool:
    near = (off <= used * least) & (least >= NORMAL)
    return bool((near | ((off == 0.0) & (least == 0.0))).all())

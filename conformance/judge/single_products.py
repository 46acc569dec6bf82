"""Products of matrices that the same product in float32 shows to be right, at half the cost.

A product that is summed in float32 here is one of those that are permitted, whatever the order: an
answer that equals it is right, and so is one that is stored in 16 bits and is next to it. Others
are near it by what is permitted beyond its own error. Derivations: docs/spec/judging.md, "What
certainly lies within".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.ball_sums import bits_of, nonzeros
from moe_routing.conformance.judge.balls import UNIT
from moe_routing.conformance.judge.intervals import store_unit, underflow
from moe_routing.conformance.judge.least import HELD, KEPT, LAST, greatest, in_balls
from moe_routing.reference.formats import Bools, FloatFormat, Floats, Ids, Numbers

Singles = npt.NDArray[np.float32]

_PART = 192
"""Summands that are added up at once: as many as libraries do, whose sums are then the same."""

_MOST = 2**18
"""Summands of which the error of a sum in parts is far below what is kept back."""

_BLOCK = 2**18
"""About how many products are made and looked at together: a cache holds some of these."""

_EACH = 2**18
"""Summands of the numbers that are looked at one by one, all of them."""

_FEW = 2**8
"""Numbers that are looked at one by one before a part of the magnitudes of all is summed."""

_EVERY = 8
"""Of how many summands one is of that part."""

_SOME = 16
"""The first numbers of a row that say whether it may be exact."""


@dataclass(frozen=True, eq=False)
class SingleMatrix:
    """The rows ``[N, n]`` that a gradient is multiplied with, and what stores the products.

    Products with ``more`` rows may be added, each product and the sum stored.
    """

    rows: Singles
    form: FloatFormat
    more: Singles | None = None

    def holds(self, answered: Numbers, a: Floats) -> bool:
        """Whether each of ``answered [T, N]`` is certainly a permitted ``a @ rows.T``.

        None of whose sums leaves its range. False says nothing.
        """
        with np.errstate(over="ignore"):
            single, given = a.astype(np.float32), answered.astype(np.float32, copy=False)
        if len(self.rows.T) > _MOST or not np.array_equal(single, a):
            return False
        if given is not answered and not np.array_equal(given, answered):
            return False
        if self.store and not self.form.holds(given):
            return False
        step = max(1, _BLOCK // max(1, len(self.rows)))
        blocks = [slice(first, first + step) for first in range(0, len(given), step)]
        with np.errstate(all="ignore"):
            return all(_Block(self, given[some], single[some]).holds() for some in blocks)

    @property
    def each(self) -> list[Singles]:
        """The rows of each product."""
        return [self.rows] if self.more is None else [self.rows, self.more]

    @cached_property
    def store(self) -> float:
        """What storing a product is off by in proportion; 0 where all is float32."""
        return store_unit(self.form)

    @cached_property
    def parts(self) -> list[slice]:
        """The parts of the summands that are added up at once."""
        n = len(self.rows.T)
        size = -(-n // 2) if _PART < n <= 2 * _PART else _PART
        return [slice(first, first + size) for first in range(0, max(n, 1), size)]

    @cached_property
    def fewest(self) -> int:
        """How many numbers of each row are not 0, at the least."""
        return int(nonzeros(self.rows).min(initial=len(self.rows.T)))

    @cached_property
    def quantum(self) -> float:
        """A power of two that no row's lowest bit is above, times the steps of an exact sum."""
        return float(bits_of(self.rows[:, :_SOME]).max(initial=0.0)) * HELD


@dataclass(frozen=True, eq=False)
class _Block:
    """Some rows of an answer, ``[t, N]``, and what they are the product of with a matrix."""

    matrix: SingleMatrix
    given: Singles
    a: Singles

    def holds(self) -> bool:
        """Whether all of it is certainly right."""
        return self._is_stored() if self.matrix.store else self._is_summed()

    def _is_stored(self) -> bool:
        """Whether each number is next to its sum, as no other is that the format holds.

        Of two products each is stored as well, but for one that the format holds, which may be
        exact.
        """
        point, *others = (self.a @ rows.T for rows in self.matrix.each)
        parts = [point.copy(), *others] if others else []
        for other in others:
            point += other
        off = self.given - point
        np.abs(off, out=off)
        np.abs(point, out=point)
        for part in parts:
            part[self.matrix.form.represents(part)] = 0.0
            point += np.abs(part, out=part)
        point *= np.float32(KEPT * self.matrix.store)
        near = off <= point
        if near.all():
            return True
        left = np.flatnonzero(~near)
        if not others:
            size = point.reshape(-1)[left] / np.float32(KEPT * self.matrix.store)
            left = left[~self._below(size, off.reshape(-1)[left])]
        return self._hold_at(left)

    def _below(self, size: Singles, off: Singles) -> Bools:
        """Return which sums are below the range of the format, and off by less than that may be."""
        form = self.matrix.form
        below: Bools = (size > 0.0) & (size < KEPT * form.tiny) & (off <= KEPT * underflow(form))
        return below

    def _is_summed(self) -> bool:
        """Whether each number equals its sum, or is near by what is permitted beyond its error."""
        point = self._point()
        if np.array_equal(point, self.given):
            return True
        if self.matrix.more is not None:
            return False
        off, size = np.abs(self.given - point), np.abs(point)
        units, quantum = self._beyond()
        near = (off <= units * (size - quantum)) | (off == 0.0)
        if np.count_nonzero(near) < near.size - _FEW:
            every = slice(None, None, _EVERY)
            size = np.abs(self.a[:, every]) @ np.abs(self.matrix.rows[:, every]).T
            near |= off <= units * (size * np.float32(KEPT) - quantum)
        return self._hold_at(np.flatnonzero(~near))

    def _point(self) -> Singles:
        """Return the product, its parts added up one after the other, or the sum of two."""
        point, *others = (self._summed(rows) for rows in self.matrix.each)
        for other in others:
            point += other
        return point

    def _summed(self, rows: Singles) -> Singles:
        first, *others = self.matrix.parts
        point: Singles = self.a[:, first] @ rows[:, first].T
        for part in others:
            point += self.a[:, part] @ rows[:, part].T
        return point

    def _beyond(self) -> tuple[Singles, Singles]:
        """Return the units ``[t, 1]`` of a sum beyond the point's, and the most that is exact."""
        parts, there = self.matrix.parts, self.a != 0.0
        each = np.stack([np.count_nonzero(there[:, part], axis=1) for part in parts])
        count = np.minimum(each.sum(axis=0), self.matrix.fewest)
        units = np.maximum(count - each.max(axis=0) - (len(parts) - 1), 0) * (UNIT * KEPT)
        some = np.take_along_axis(self.a, greatest(self.a), axis=1)
        exact = bits_of(some) * self.matrix.quantum
        return units[:, None].astype(np.float32), exact[:, None].astype(np.float32)

    def _hold_at(self, places: Ids) -> bool:
        """Whether the numbers at some places are right, of whose summands each is looked at."""
        if len(places) * len(self.a.T) > _EACH:
            return False
        row, column = np.divmod(places, len(self.matrix.rows))
        a, given = self.a[row], self.given[row, column].astype(np.float64)
        balls = [_least(a, rows[column], self.matrix.store) for rows in self.matrix.each]
        point, rad = (np.add.reduce(each) for each in zip(*balls, strict=True))
        if len(balls) > 1:
            rad += self.matrix.store * (np.abs(point) + rad) * (rad > 0.0)
        left = ~((np.abs(given - point) <= KEPT * rad) & (rad > 0.0))
        few = int(np.count_nonzero(left))
        if not few or few > LAST or len(balls) > 1:
            return not few
        return in_balls(given[left], a[left], self.matrix.rows[column][left], self.matrix.form)


def _least(a: Singles, rows: Singles, store: float) -> tuple[Floats, Floats]:
    """Return sums of products ``[P]``, and the least that each is off by; 0 where it may be exact.

    Each is of a row of ``a`` and one of ``rows``.
    """
    products = a.astype(np.float64) * rows
    point, size = products.sum(axis=1), np.abs(products).sum(axis=1)
    units = np.count_nonzero(products, axis=1) * UNIT
    rounds = size > bits_of(a) * bits_of(rows) * HELD
    return point, np.where(rounds, units * size + store * np.abs(point), 0.0)

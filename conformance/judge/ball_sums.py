"""Sums of balls: along an axis, and products with a matrix; exact where no order rounds them.

Derivations: docs/spec/judging.md, "Balls".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.balls import TINY, UNIT, Ball, known, settled
from moe_routing.conformance.judge.exactness import lowest_powers
from moe_routing.conformance.judge.intervals import store_unit, underflow
from moe_routing.reference.formats import FLOAT32, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.quick import some

_MANY = 2**18
"""The products of magnitudes from which they are summed in float32, at half the cost."""

_SOME = 16
"""The first numbers of a row that say whether it may be exact."""

_TF32_UNIT, _TF32_BITS = 2.0**-10, 11  # significand bits, truncated rather than rounded


def total(a: Ball, form: FloatFormat, axis: int = -1, *, stores: int | None = None) -> Ball:
    """Return the sum along ``axis``, in any order, its partial sums stored or not.

    A summand meets at most ``stores`` of them; as many as a tree has, if None.
    """
    reach, s = a.reach, store_unit(form)
    terms = (reach != 0.0).sum(axis=axis)
    n = np.maximum(terms - 1, 0)
    often = np.ceil(np.log2(np.maximum(terms, 1))) + 1 if stores is None else np.minimum(stores, n)
    with np.errstate(invalid="ignore", over="ignore"):
        mid, whole = a.mid.sum(axis=axis), reach.sum(axis=axis)
        rad = a.rad.sum(axis=axis) + np.expm1(n * UNIT + often * s) * whole
        rad = rad + (n + 1) * (TINY + underflow(form) * (s > 0))
    firm = (a.rad == 0.0).all(axis=axis)
    if some(firm):
        rad = np.where(firm & _on_grid(a.mid, whole, form, axis), 0.0, rad)
    return known(mid, np.where(whole <= form.largest, rad, np.inf))


def product(
    a: Ball, matrix: npt.ArrayLike, form: FloatFormat, *, products: str = "float32"
) -> Ball:
    """Return ``a @ matrix``, summed in float32 in any order, and stored once."""
    return settled(summed(a, Matrix.of(np.asarray(matrix).T), products=products), form, 0)


@dataclass(frozen=True, eq=False)
class Matrix:
    """The rows ``[..., N, n]`` that rows of balls are multiplied with, and what they say."""

    rows: Floats

    @classmethod
    def of(cls, rows: npt.NDArray[np.floating]) -> Matrix:
        """Read the rows, whatever they are stored in."""
        return cls(rows.astype(np.float64))

    @property
    def turned(self) -> Matrix:
        """The matrix for products with its other side."""
        return Matrix(self.rows.mT)

    @cached_property
    def size(self) -> Floats:
        """The magnitudes."""
        magnitudes: Floats = np.abs(self.rows)
        return magnitudes

    @cached_property
    def narrow_size(self) -> npt.NDArray[np.float32]:
        """The magnitudes in float32, rounded."""
        return self.size.astype(np.float32)

    @cached_property
    def count(self) -> Ids:
        """How many numbers of each row are not 0, ``[..., 1, N]``."""
        return np.asarray((self.rows != 0.0).sum(axis=-1))[..., None, :]

    @cached_property
    def bits(self) -> Floats:
        """The greatest power of two that divides each row, ``[..., N]``."""
        return bits_of(self.rows)

    @cached_property
    def some_bits(self) -> Floats:
        """An upper bound of ``bits``, from the first numbers of each row."""
        return self.bits if self.rows.shape[-1] <= _SOME else bits_of(self.rows[..., :_SOME])

    @cached_property
    def greatest_bit(self) -> Floats:
        """The greatest of ``some_bits``, ``[..., 1, 1]``."""
        return np.asarray(self.some_bits.max(axis=-1, keepdims=True, initial=0.0))[..., None]

    @cached_property
    def least_count(self) -> Ids:
        """The least of ``count``, ``[..., 1, 1]``."""
        least = nonzeros(self.rows).min(axis=-1, keepdims=True, initial=self.rows.shape[-1])
        return np.asarray(least)[..., None]

    @cached_property
    def lost(self) -> Floats | None:
        """The magnitudes that a fast mode flushes, if there are any."""
        small = (self.size < TINY) & (self.size > 0.0)
        return np.where(small, self.size, 0.0) if some(small) else None


def summed(
    a: Ball, matrix: Matrix, *, products: str = "float32", start: Ball | None = None
) -> Ball:
    """Return ``a @ matrix.rows.mT``, summed in float32 in any order.

    The sum may begin with ``start``, a bias that is added later: an exact one has its bits too.
    All partial sums are greater by it.
    """
    reach, rad = a.reach, a.rad
    with np.errstate(invalid="ignore", over="ignore"):
        small = (np.abs(a.mid) - rad < TINY) & (reach > 0.0)
        if some(small):
            rad = rad + small * TINY
        n = np.minimum((reach != 0.0).sum(axis=-1)[..., None], matrix.count)
        mid, whole = a.mid @ matrix.rows.mT, _magnitudes(reach, matrix, n)
        more = 0.0 if start is None else start.reach
        units = (n + (start is not None)) * UNIT
        reached = whole if start is None else whole + more
        out = _grown(units) * reached + n * TINY
        loose = rad != 0.0
        if some(loose):
            out += rad @ matrix.size.mT
        if matrix.lost is not None:
            out += reach @ matrix.lost.mT
        if products == "tf32":
            out += _cut(a, matrix)
        if matrix.lost is None:
            firm = ~loose.any(axis=-1)
            if start is None:
                firm &= reach.any(axis=-1)  # of zeros nothing is left to be exact
            exact = some(firm) and _exact(a, firm, matrix, start, products, whole)
            if not isinstance(exact, bool) and some(exact):
                out = np.where(exact, 0.0, out)
        past = ~(reached <= FLOAT32.largest)
        return known(mid, np.where(past, np.inf, out) if some(past) else out)


def _grown(units: Floats) -> Floats:
    """Return at least ``exp(units) - 1``, of units below 1."""
    return units + units * units


def _magnitudes(reach: Floats, matrix: Matrix, terms: Ids) -> Floats:
    """Return at least ``reach @ matrix.size.mT``: of many numbers by a sum in float32.

    n roundings of a product and its sum, and two of the operands, take off less than is added.
    Sums that have no ``terms`` other than 0 are 0.
    """
    n = reach.shape[-1]
    if reach.size * matrix.rows.shape[-2] < _MANY:
        whole: Floats = reach @ matrix.size.mT
        return whole
    narrow = reach.astype(np.float32) @ matrix.narrow_size.mT
    large = reach.max(axis=-1, keepdims=True) + matrix.narrow_size.max(axis=-1)[..., None, :]
    under = 3.0 * n * TINY * (1.0 + large)
    least: Floats = narrow.astype(np.float64) * math.exp((n + 2) * UNIT) + under
    return least if terms.all() else np.where(terms > 0, least, 0.0)


def _exact(
    a: Ball, firm: Bools, matrix: Matrix, start: Ball | None, products: str, least: Floats
) -> Bools | bool:
    """Return where every product is a multiple of a power of two that no partial sum leaves.

    ``least`` is no less than the sums of magnitudes. Where even half of it is too much for the
    first numbers of each row, nothing is exact.
    """
    own = _bits_of(a.mid)[..., None]
    most = own * matrix.some_bits[..., None, :] * 2.0**FLOAT32.precision
    if not some(firm[..., None] & (least / 2.0 <= most)):
        return False
    whole: Floats = a.reach @ matrix.size.mT
    quantum, size = own * matrix.bits[..., None, :], whole
    if start is not None:
        quantum = np.minimum(quantum, bits_of(start.mid[..., None]))
        size = whole + start.reach
    fits: Bools = (size <= quantum * 2.0**FLOAT32.precision) & firm[..., None]
    fits &= (quantum >= FLOAT32.tiny) | (size == 0.0)
    return fits & ~(_cut(a, matrix) > 0.0) if products == "tf32" else fits


def nonzeros(rows: npt.NDArray[np.floating]) -> Ids:
    """Return how many numbers of each row are not 0."""
    if np.count_nonzero(rows) == rows.size:  # at once is faster than row by row
        return np.full(rows.shape[:-1], rows.shape[-1])
    return np.asarray(np.count_nonzero(rows, axis=-1))


def bits_of(rows: npt.NDArray[np.floating]) -> Floats:
    """Return the greatest power of two that divides each row; 0 where float32 has none."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _bits_of(rows)


def _bits_of(rows: npt.NDArray[np.floating]) -> Floats:
    """Return what ``bits_of`` does, where warnings are off already."""
    if not rows.size:  # no row, or rows of no number
        return np.full(rows.shape[:-1], 2.0**1000)
    narrow = rows.astype(np.float32)
    held = (narrow == rows).all(axis=-1)
    return np.where(held, lowest_powers(narrow, 2.0**1000), 0.0)


def _cut(a: Ball, matrix: Matrix) -> Floats:
    """Return what products lose to operands of 11 bits."""
    dx, dm = _tf32(a.mid, a.rad), _tf32(matrix.rows, np.zeros(1))
    lost: Floats = dx @ (matrix.size + dm).mT + a.reach @ dm.mT
    return lost


def _tf32(values: Floats, rad: Floats) -> Floats:
    mantissa = np.frexp(values)[0] * 2.0**_TF32_BITS
    fits = (mantissa == np.rint(mantissa)) & (rad == 0.0)
    return np.where(fits, 0.0, _TF32_UNIT * (np.abs(values) + rad))


def _on_grid(values: Floats, whole: Floats, form: FloatFormat, axis: int) -> Bools:
    """Return where ``form`` holds every partial sum of ``values``, in any order."""
    step = np.ldexp(1.0, np.frexp(np.maximum(whole, form.tiny))[1] - form.precision)
    step = np.where(whole == step * 2.0 ** (form.precision - 1), step / 2.0, step)
    steps = values / np.expand_dims(step, axis)
    even: Bools = (steps == np.rint(steps)).all(axis=axis) & (step >= form.tiny)
    even |= whole == 0.0
    return even

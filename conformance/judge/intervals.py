"""Interval arithmetic: what a number may have become after a counted number of roundings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from moe_routing.reference.formats import FLOAT32, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.quick import some, surely_finite

ROUNDING = 1
"""Units of roundoff in one correctly rounded operation (IEEE 754)."""

ELEMENTARY = 5
"""Units of roundoff in one elementary function: exp, exp2, log, log1p, sqrt or tanh. CUDA and
SLEEF document 2 ulp at most, which are 4 units; NumPy's own float32 functions, measured over
every float32, reach 4.58 in log, 3.84 in exp2 and 3.57 in exp."""

DIVISION = 4
"""Units of roundoff in one quotient: a 1-ulp reciprocal (2 units), the product with it (1),
and storage in the stage's dtype (1)."""

POWER = 8
"""Units of roundoff in one power: 4 ulp, CUDA's documented powf."""

_ELEMENTARY_16, _DIVISION_16 = 2.0**1.1, 2
_LANES = 8


def elementary(form: FloatFormat) -> float:
    """Return the units of roundoff in one elementary function whose result is in ``form``.

    In 16 bits: the ``2^-9.9`` of PTX's ``ex2.approx.f16`` and the ``2^-7`` of its bfloat16; or
    one store of a float32 result, whose own error is less than a unit.
    """
    return _ELEMENTARY_16 if store_unit(form) else ELEMENTARY


def log_or_root(form: FloatFormat) -> float:
    """Return the units of roundoff in a logarithm or a root: no unit computes one in 16 bits.

    There it is a float32 result, and one store.
    """
    if not store_unit(form):
        return ELEMENTARY
    return ROUNDING + ELEMENTARY * FLOAT32.unit_roundoff / form.unit_roundoff


def division(form: FloatFormat) -> int:
    """Return the units of roundoff in one quotient: in 16 bits, two stores of float32."""
    return _DIVISION_16 if store_unit(form) else DIVISION


def additions(count: int, form: FloatFormat) -> int:
    """Return the units of roundoff in a sum of ``count`` numbers over the experts.

    In float32 any order of summation. In 16 bits a sum in float32 that is stored once, as
    eager code has it, or a tree of stored sums; no kernel adds hundreds of experts one after
    the other in 16 bits.
    """
    return count if form.precision >= FLOAT32.precision else (count - 1).bit_length() + 1


def selected_additions(count: int, form: FloatFormat) -> int:
    """Return the units of roundoff in a sum of ``count`` numbers over the selected experts.

    In 16 bits a running sum of eight at most, which is what a vector of 128 bits holds, and a
    tree of the sums of more.
    """
    if form.precision >= FLOAT32.precision:
        return count
    return min(count, _LANES) - 1 + (-(-count // _LANES) - 1).bit_length()


def running_additions(values: Interval, form: FloatFormat) -> Floats:
    """Return, ``[T, 1]``, how many of ``selected_additions`` the numbers of each row can lose.

    An addition errs by a unit of the partial sum that it makes. So the errors are a weighted
    sum of the numbers, each counted once for every partial sum that holds it, and at most where
    the greatest are counted most often.
    """
    count = values.lo.shape[1]
    runs = -(-count // _LANES)
    often = [min(_LANES, count) - max(place, 1) for place in range(min(_LANES, count))]
    weights = np.repeat(np.array(often, dtype=np.float64), runs)[:count]
    total = values.lo.sum(axis=1, keepdims=True)
    lost = (-np.sort(-values.hi, axis=1) * weights).sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        units = np.fmin(lost / total, weights.max(initial=0.0))
    return np.asarray(units + selected_additions(count, form) - weights.max(initial=0.0))


def store_unit(form: FloatFormat) -> float:
    """Return the unit roundoff of a store in less than float32: 0 for float32 itself."""
    return form.unit_roundoff if form.precision < FLOAT32.precision else 0.0


def half_ulp(values: Floats, form: FloatFormat) -> Floats:
    """Return the most that a store of ``values`` in ``form``, none of them negative, errs by.

    It grows with the value, so that of an upper bound bounds that of what is below it; a store
    of 0 is exact.
    """
    exponents = np.maximum(np.frexp(values)[1] - 1, form.min_exponent)
    errors: Floats = np.where(values > 0.0, np.ldexp(form.unit_roundoff, exponents), 0.0)
    return errors


_MAY_FLUSH = ("float32", "bfloat16")


def underflow(form: FloatFormat) -> float:
    """Return the largest absolute error of one rounding below the normal range of ``form``.

    Float32, and bfloat16 which runs through it, are flushed to 0 by the fast modes of GPUs
    and CPUs: all of ``tiny``. Float16 is not, unless code requests it (PTX ``.ftz.f16``,
    ARM FZ16), and rounds to the nearest subnormal: half the least of them.
    """
    return form.tiny if form.name in _MAY_FLUSH else form.unit_roundoff * form.tiny


class JudgeError(Exception):
    """The judge itself failed: never a verdict on a backend."""


@dataclass(frozen=True, eq=False)
class Interval:
    """Element-wise bounds ``lo <= value <= hi``, float64 arrays of one shape."""

    lo: Floats
    hi: Floats

    def checked(self, judged: Bools) -> Interval:
        """Return self, or raise ``JudgeError`` where a row of ``judged [T]`` has a NaN endpoint."""
        if surely_finite(self.lo) and surely_finite(self.hi):
            return self
        least = self.lo.min(axis=1, initial=0.0), self.hi.min(axis=1, initial=0.0)  # NaN, if any
        if (np.isnan(least[0] + least[1]) & judged).any():
            raise JudgeError("an interval has a NaN endpoint")
        return self

    @classmethod
    def point(cls, values: npt.ArrayLike) -> Interval:
        """Return the interval that holds exactly ``values``."""
        values = np.asarray(values, dtype=np.float64)
        return cls(values, values)

    def widen(self, roundings: float, unit: float, absolute: float | Floats = 0.0) -> Interval:
        """Allow ``roundings`` factors of ``1 ± unit``, then an error of ``absolute``.

        The factors are exact, ``(1 ± unit)**roundings``, so a bound keeps its sign however
        many there are. Infinite endpoints stay as they are: rounding does not move them.
        """
        less, more = _factors(roundings, unit)
        lo = np.minimum(self.lo * less, self.lo * more) - absolute
        hi = np.maximum(self.hi * less, self.hi * more) + absolute
        if less == 0.0 or isinstance(absolute, np.ndarray):  # inf * 0 and inf - inf are NaN
            lo = np.where(np.isinf(self.lo), self.lo, lo)
            hi = np.where(np.isinf(self.hi), self.hi, hi)
        return Interval(lo, hi)

    def widen_nonnegative(
        self, roundings: float, unit: float, absolute: float | Floats = 0.0
    ) -> Interval:
        """Widen finite endpoints that are not negative, by less work, and cut at 0."""
        less, more = _factors(roundings, unit)
        lo = self.lo * less
        lo -= absolute
        hi = self.hi * more
        hi += absolute
        return Interval(np.maximum(lo, 0.0, out=lo), hi)

    def in_units(self, units: Floats, unit: float) -> Interval:
        """Allow as many factors of ``1 ± unit`` as ``units`` says of each finite number, or row."""
        return Interval(
            self.lo * np.exp(units * np.log1p(-unit)), self.hi * np.exp(units * np.log1p(unit))
        )

    def each(self, change: Callable[[Floats], Floats]) -> Interval:
        """Apply ``change`` to both endpoints: once where they are one array, as a point's are."""
        lo = change(self.lo)
        return Interval(lo, lo if self.hi is self.lo else change(self.hi))

    def stored(self, form: FloatFormat) -> Interval:
        """Allow, but not demand, one rounding to ``form``; rounding is monotone."""
        rounded = self.each(form.round)
        return Interval(np.minimum(self.lo, rounded.lo), np.maximum(self.hi, rounded.hi))

    def nonnegative(self) -> Interval:
        """Cut at 0 what cannot be negative."""
        return Interval(np.maximum(self.lo, 0.0), np.maximum(self.hi, 0.0))

    def times(self, factor: npt.ArrayLike) -> Interval:
        """Multiply by ``factor``; a negative one swaps the endpoints, 0 gives 0."""
        with np.errstate(invalid="ignore"):
            a, b = (end * np.asarray(factor, dtype=np.float64) for end in (self.lo, self.hi))
        a, b = np.where(np.isnan(a), 0.0, a), np.where(np.isnan(b), 0.0, b)
        return Interval(np.minimum(a, b), np.maximum(a, b))

    def plus(self, term: npt.ArrayLike) -> Interval:
        """Add ``term`` exactly; a term of -inf or +inf wins."""
        term = np.asarray(term, dtype=np.float64)
        infinite = np.isinf(term)
        with np.errstate(invalid="ignore"):
            total = Interval(self.lo + term, self.hi + term)
        if not some(infinite):
            return total
        return Interval(np.where(infinite, term, total.lo), np.where(infinite, term, total.hi))

    def at(self, expert_ids: Ids) -> Interval:
        """Gather the columns ``expert_ids [T, K]`` of each row."""
        rows = np.arange(len(expert_ids))[:, None]
        return self.each(lambda bound: bound[rows, expert_ids])

    def rows(self, which: Ids | slice) -> Interval:
        """Take the rows ``which``."""
        return self.each(lambda bound: bound[which])

    def where(self, mask: Bools, other: Interval) -> Interval:
        """Take self where ``mask`` holds and ``other`` elsewhere."""
        return Interval(np.where(mask, self.lo, other.lo), np.where(mask, self.hi, other.hi))

    def contains(self, values: Floats) -> Bools:
        """Return, element by element, whether ``values`` are permitted; NaN never is."""
        return (self.lo <= values) & (values <= self.hi)


def joined_intervals(parts: Sequence[Interval]) -> Interval:
    """Return the rows of some intervals, one after the other."""
    lo, hi = ([getattr(part, end) for part in parts] for end in ("lo", "hi"))
    return Interval(np.concatenate(lo), np.concatenate(hi))


@lru_cache(maxsize=4096)
def _factors(roundings: float, unit: float) -> tuple[float, float]:
    """Return ``(1 - unit)**roundings`` and ``(1 + unit)**roundings``."""
    return (
        float(np.exp(roundings * np.log1p(-unit))),
        float(np.exp(roundings * np.log1p(unit))),
    )

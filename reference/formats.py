"""The floating-point formats that hidden states, logits, scores and weights are stored in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.floating]  # float32 or float64, as they came
Bools = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]  # of experts, and whatever else counts or points


@dataclass(frozen=True, kw_only=True)
class FloatFormat:
    """A binary floating-point format: its precision and its range.

    ``precision`` counts significand bits, the hidden one included; ``min_exponent``
    and ``max_exponent`` are those of the smallest and the largest normal binade.
    Source: IEEE 754-2019 table 3.5, and the bfloat16 layout (float32 cut to 16 bits).
    """

    name: str
    precision: int
    min_exponent: int
    max_exponent: int

    @cached_property
    def unit_roundoff(self) -> float:
        """The largest relative error of rounding to nearest, in the normal range."""
        return 2.0**-self.precision

    @cached_property
    def tiny(self) -> float:
        """The smallest normal number: rounding below it is absolute, or flushes to 0."""
        return 2.0**self.min_exponent

    @cached_property
    def largest(self) -> float:
        """The largest finite number."""
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.max_exponent

    def round(self, values: npt.ArrayLike) -> Floats:
        """Round float64 ``values`` of any shape to this format, ties to even."""
        exact: Floats = np.asarray(values, dtype=np.float64)
        with np.errstate(all="ignore"):
            if self.name in _NATIVE:
                return exact.astype(self.name).astype(np.float64)
            if self._is_normal(exact):
                return _cut(exact, self.precision)
            exponent = np.frexp(exact)[1] - 1
            step = np.ldexp(1.0, np.maximum(exponent, self.min_exponent) - self.precision + 1)
            rounded = np.rint(exact / step) * step
            overflow = np.abs(rounded) > self.largest
            return np.where(overflow, np.copysign(np.inf, exact), rounded)

    def _is_normal(self, exact: Floats) -> bool:
        """Return whether all of ``exact`` are 0 or far from where this format ends."""
        magnitude = np.abs(exact)
        least = magnitude.min(where=magnitude > 0.0, initial=1.0)
        most = magnitude.max(initial=0.0)
        return bool(least >= self.tiny and most < 2.0**self.max_exponent)

    def holds(self, values: npt.NDArray[np.float32]) -> bool:
        """Return whether this format holds all of ``values`` exactly."""
        return self._plainly_holds(values) or bool(self.represents(values).all())

    def _plainly_holds(self, single: npt.NDArray[np.float32]) -> bool:
        """Return whether float32 are seen at a glance to be held: by the bits that a cast cuts."""
        bits = single.view(np.uint32)
        if self.name not in _CUT or np.bitwise_or.reduce(bits, axis=None) & _CUT[self.name]:
            return False
        if self.min_exponent == FLOAT32.min_exponent:
            return True
        with np.errstate(invalid="ignore"):  # a signalling NaN, which is not seen at a glance
            magnitude = np.abs(single)
            normal = (magnitude >= self.tiny) & (magnitude <= self.largest)
            return bool((normal | (magnitude == 0.0)).all())

    def represents(self, values: npt.ArrayLike) -> Bools:
        """Return, element by element, whether this format holds ``values`` exactly."""
        if getattr(values, "dtype", None) == np.float32 and self.precision < FLOAT32.precision:
            single: npt.NDArray[np.float32] = np.asarray(values)
            return self._holds(single) | np.isnan(single)
        exact: Floats = np.asarray(values, dtype=np.float64)
        return np.equal(self.round(exact), exact) | np.isnan(exact)

    def _holds(self, single: npt.NDArray[np.float32]) -> Bools:
        """Return what ``represents`` does of float32, but for NaN, in one pass or two."""
        if self.name == "bfloat16":
            cut: Bools = (single.view(np.uint32) & _CUT[self.name]) == 0
            return cut
        with np.errstate(over="ignore"):
            return np.equal(single.astype(self.name).astype(np.float32), single)


def _cut(exact: Floats, precision: int) -> Floats:
    """Round float64 to ``precision`` bits, fewer than its own, ties to even, by their integers."""
    bits, cut = exact.view(np.uint64), 53 - precision
    last = np.uint64(cut)
    below_half = np.uint64((1 << cut - 1) - 1)  # of what the last bit that is left stands for
    odd = (bits >> last) & np.uint64(1)
    rounded: Floats = ((bits + below_half + odd) >> last << last).view(np.float64)
    return rounded


_CUT = {"bfloat16": np.uint32(0xFFFF), "float16": np.uint32(0x1FFF)}
"""The last bits of a float32, which narrower formats of as many or fewer exponents cut off."""

_NATIVE = ("float16", "float32", "float64")  # NumPy's own casts round to nearest even

FLOAT32 = FloatFormat(name="float32", precision=24, min_exponent=-126, max_exponent=127)
BFLOAT16 = FloatFormat(name="bfloat16", precision=8, min_exponent=-126, max_exponent=127)
FLOAT16 = FloatFormat(name="float16", precision=11, min_exponent=-14, max_exponent=15)
FLOAT64 = FloatFormat(name="float64", precision=53, min_exponent=-1022, max_exponent=1023)

INPUT_FORMATS = {f.name: f for f in (FLOAT32, BFLOAT16, FLOAT16)}
"""The formats that inputs may come in, by dtype name."""

FORMATS = {**INPUT_FORMATS, FLOAT64.name: FLOAT64}
"""Every format a backend's answer may be stored in, by dtype name."""

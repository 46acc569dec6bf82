"""Where a number stands on a strip: from the values that matter to percent of its width."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MARGIN = 0.12
"""The share of a strip left free at each end, so that marks at the ends can be seen."""


@dataclass(frozen=True)
class Scale:
    """A linear scale from ``low`` to ``high``; what lies beyond stands at the end."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float]) -> Scale:
        """Return the scale that shows the finite ones of ``values``, with a margin."""
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(finite), max(finite)
        spread = high - low or abs(high) or 1.0
        return cls(low - MARGIN * spread, high + MARGIN * spread)

    @classmethod
    def from_zero(cls, values: Iterable[float]) -> Scale:
        """Return the scale of bars: from zero to the farthest finite one of ``values``."""
        finite = [value for value in values if math.isfinite(value)]
        low, high = min([0.0, *finite]), max([0.0, *finite])
        return cls(low, high if high > low else low + 1.0)

    def share(self, value: float) -> float:
        """Return where ``value`` stands, from 0 to 1; NaN stands at 0."""
        if math.isnan(value) or value <= self.low:
            return 0.0
        return min(1.0, (value - self.low) / (self.high - self.low))

    def percent(self, value: float) -> str:
        """Return where ``value`` stands, as an SVG length."""
        return f"{100 * self.share(value):.3f}%"

    def width(self, low: float, high: float) -> str:
        """Return the width between two values, as an SVG length."""
        return f"{100 * (self.share(high) - self.share(low)):.3f}%"

    def beyond(self, low: float, high: float) -> str | None:
        """Return ``left`` or ``right`` where a whole band lies beyond that end, else None."""
        if high < self.low:
            return "left"
        return "right" if low > self.high else None

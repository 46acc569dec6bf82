"""Whether one factor explains the weights of a row (docs/spec/judging.md, "Rows")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.intervals import Interval, joined_intervals
from moe_routing.reference.formats import Bools, Floats, Ids

NONE = -1
"""Stands for a slot where there is none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowBounds:
    """The permitted weights ``[T, K]`` up to a factor of the row, which is not negative.

    A weight is right if it is within ``below`` of the factor times a number of ``own``, times
    its ``scale``. ``own`` is not negative.
    """

    own: Interval
    scale: Floats
    below: Floats

    def rows(self, which: Ids | slice) -> RowBounds:
        """Take the rows ``which``."""
        return RowBounds(own=self.own.rows(which), scale=self.scale[which], below=self.below[which])

    def apart(self, weights: Floats, judged: Bools) -> Ids:
        """Return ``[T, 2]`` the slots that no factor explains together, too high and too low.

        They are ``NONE`` where one factor explains all slots of a row, and in rows that are not
        ``judged [T]``. What is infinite or NaN, and what is scaled by 0, limits no factor.
        """
        with np.errstate(all="ignore"):
            values, below = weights / self.scale, self.below / np.abs(self.scale)
            least, most = (values - below) / self.own.hi, (values + below) / self.own.lo
        known = np.isfinite(values) & np.isfinite(below)
        least = np.where(known & np.isfinite(least), least, 0.0)
        most = np.where(known & (self.own.lo > 0.0), most, np.inf)
        pair = np.stack([least.argmax(axis=1), most.argmin(axis=1)], axis=1)
        explained = least.max(axis=1) <= most.min(axis=1)
        return np.where((explained | ~judged)[:, None], NONE, pair)

    def ratio(self, token: int, one: int, other: int) -> tuple[float, float]:
        """Return what the quotient of two weights of a token may be, but for underflow."""
        scale = self.scale[token, one] / self.scale[token, other]
        ends = (
            scale * self.own.lo[token, one] / self.own.hi[token, other],
            scale * self.own.hi[token, one] / self.own.lo[token, other],
        )
        return float(min(ends)), float(max(ends))


def joined_rows(parts: Sequence[RowBounds]) -> RowBounds:
    """Return the rows of some bounds, one after the other."""
    return RowBounds(
        own=joined_intervals([part.own for part in parts]),
        scale=np.concatenate([part.scale for part in parts]),
        below=np.concatenate([part.below for part in parts]),
    )

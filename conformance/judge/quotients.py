"""Scores as quotients, and what every score function needs of exponents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.intervals import Interval, store_unit
from moe_routing.reference.formats import FLOAT64, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.quick import some

EXPONENT = 4
"""Roundings of an exponent's argument in float32, relative to the argument: a cast, the shift by
the maximum, the constant log2(e), and the product with it. Less than float32 is storage only:
there the argument is cast, and its shift stored, and the change of base stays in float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreBounds:
    """The permitted scores ``[T, E]`` as quotients ``numerators / denominator``.

    Only a softmax has a denominator ``[T, 1]``; it is common to the row, so it cancels
    wherever scores of one row are compared or renormalised. ``scores`` are the quotients.
    """

    scores: Interval
    numerators: Interval
    denominator: Interval

    def rows(self, which: Ids | slice) -> ScoreBounds:
        """Take the rows ``which``."""
        scores = self.scores.rows(which)
        one = self.numerators is self.scores
        return ScoreBounds(
            scores=scores,
            numerators=scores if one else self.numerators.rows(which),
            denominator=self.denominator.rows(which),
        )

    def at(self, expert_ids: Ids) -> ScoreBounds:
        """Gather the columns ``expert_ids [T, K]`` of each row."""
        scores = self.scores.at(expert_ids)
        one = self.numerators is self.scores
        numerators = scores if one else self.numerators.at(expert_ids)
        return ScoreBounds(scores=scores, numerators=numerators, denominator=self.denominator)


def cast(logits: Interval, form: FloatFormat) -> Interval:
    """Allow a cast to less than float32; that to float32 is one of ``EXPONENT``."""
    return logits.stored(form) if store_unit(form) else logits


def exponent_off(values: Interval, slack: Floats) -> Interval:
    """Allow an absolute error of ``slack`` in the exponent of ``values``; 0 stays 0."""
    return Interval(values.lo * np.exp(-slack), values.hi * _exp(slack))


def lost_of(logits: Interval) -> Bools | None:
    """Return where a logit is -inf and its score exactly 0; None: nowhere."""
    lost: Bools = logits.hi == -np.inf
    return lost if some(lost) else None


def zero_where(lost: Bools | None, bounds: Interval) -> Interval:
    """Return ``bounds``, and exactly 0 where a logit is ``lost``."""
    if lost is None:
        return bounds
    return Interval(np.where(lost, 0.0, bounds.lo), np.where(lost, 0.0, bounds.hi))


def magnitude_of(bounds: Interval) -> Floats:
    """Return the largest magnitude that each number may have, 0 where it is infinite."""
    largest = np.abs(bounds.lo)
    if bounds.hi is not bounds.lo:
        largest = np.maximum(largest, np.abs(bounds.hi))
    return np.where(np.isfinite(largest), largest, 0.0)


def exponentials(logits: Interval, shift: Floats, slack: Floats) -> Interval:
    """Return ``exp(z - shift)``, its exponent off by ``slack`` at most."""
    return Interval(_exp(logits.lo - shift - slack), _exp(logits.hi - shift + slack))


def row_sums(values: Interval) -> Interval:
    """Sum each row, ``[T, 1]``."""
    return values.each(lambda bound: bound.sum(axis=1, keepdims=True))


def own_share(numerators: Interval, total: Interval) -> Interval:
    """Divide each numerator by the row's total, which contains that same numerator.

    Where that is 0 / 0, any share is possible.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        lo = numerators.lo / (numerators.lo + np.maximum(total.hi - numerators.hi, 0.0))
        hi = numerators.hi / (numerators.hi + np.maximum(total.lo - numerators.lo, 0.0))
    return Interval(np.fmax(lo, 0.0, out=lo), np.fmin(hi, 1.0, out=hi))  # NaN to 0 and to 1


def _exp(exponents: Floats) -> Floats:
    """Return the exponentials in place of the exponents, the largest finite number at most."""
    with np.errstate(over="ignore"):
        np.exp(exponents, out=exponents)
    return np.minimum(exponents, FLOAT64.largest, out=exponents)

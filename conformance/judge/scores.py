"""Which scores rounding can explain (docs/spec/judging.md, "Scores")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.intervals import (
    ELEMENTARY,
    ROUNDING,
    Interval,
    additions,
    division,
    elementary,
    store_unit,
    underflow,
)
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig
from moe_routing.reference.formats import FLOAT32, FLOAT64, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.logits import logit_op
from moe_routing.reference.scores import sigmoid, sqrtsoftplus

EXPONENT = 4
"""Roundings of an exponent's argument in float32, relative to the argument: a cast, the shift by
the maximum, the constant log2(e), and the product with it. Less than float32 is storage only:
there the argument is cast, and its shift stored, and the change of base stays in float32."""

_LOGARITHM = 2
"""Roundings of a norm stored as its logarithm, besides the logarithm's own: the sum with the
maximum, and its storage; the logit that it is taken from adds one of its own."""


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


def operated_bounds(config: RouterConfig, logits: Interval, form: FloatFormat) -> Interval:
    """Carry logit bounds through the logit op, two roundings and a tanh at most.

    What underflows is the multiplier or its product; the quotient, the tanh or the product
    of the softcap, the first two of which are still to be multiplied by it.
    """
    u, tiny = form.unit_roundoff, underflow(form)
    if config.logit_multiplier != 1.0:
        absolute: float | Floats = tiny * (1.0 + _magnitude(logits))
        logits = logits.times(config.logit_multiplier).widen(2 * ROUNDING, u, absolute)
    if config.logit_softcap is not None:
        capped = Interval(
            *(logit_op(_only_softcap(config), bound) for bound in (logits.lo, logits.hi))
        )
        absolute = tiny * (1.0 + 2.0 * config.logit_softcap)
        logits = capped.widen(division(form) + elementary(form) + 2 * ROUNDING, u, absolute)
    return logits


def _only_softcap(config: RouterConfig) -> RouterConfig:
    return RouterConfig.unchecked(**{**vars(config), "logit_multiplier": 1.0})


def score_bounds(
    config: RouterConfig, operated: Interval, form: FloatFormat, numerics: Numerics
) -> ScoreBounds:
    """Carry operated logit bounds through the score function, computed in ``form``."""
    if config.score == "softmax":
        return softmax_bounds(operated, form)
    if config.score == "sigmoid":
        scores = sigmoid_bounds(operated, form, numerics)
    elif config.score == "sqrtsoftplus":
        scores = _sqrtsoftplus_bounds(operated, form, numerics)
    else:
        scores = operated.stored(form)
    ones = Interval.point(np.ones((len(scores.lo), 1)))
    return ScoreBounds(scores=scores, numerators=scores, denominator=ones)


def softmax_bounds(logits: Interval, form: FloatFormat) -> ScoreBounds:
    """Bound a softmax over the last axis of ``[T, N]``.

    Numerators are ``exp(z - m)`` with m the row's greatest upper bound: a backend's own
    shift differs by a factor that is common to the row. The argument's rounding is
    absolute in the exponent, ``4 u32 (|z| + |m|)``, and where it is stored in less, shifted
    by the maximum or by the logarithm of the norm, ``u (m - z + log E)`` more. So is that of
    a norm stored as its logarithm, which the quotients allow for a second time. A -inf logit
    has the numerator 0, exactly. Rows of -inf alone, or with +inf, are NaN in every backend;
    here they get [0, 1], and the caller must not judge them.
    """
    u, tiny, store = form.unit_roundoff, underflow(form), store_unit(form)
    logits = _cast(logits, form)
    shift = logits.hi.max(axis=1, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(shift), shift, 0.0)
    magnitude, lost = _magnitude(logits), _lost(logits)
    logarithm = np.log(logits.lo.shape[1])
    slack = FLOAT32.unit_roundoff * EXPONENT * (magnitude + np.abs(shift))
    if store:
        below = np.where(np.isfinite(logits.lo), shift - logits.lo, 0.0)
        total = np.exp(logits.hi - shift).sum(axis=1, keepdims=True)
        slack = slack + store * (below + np.log(np.maximum(total, 1.0)))
    bounds = Interval(_exp(logits.lo - shift - slack), _exp(logits.hi - shift + slack))
    numerators = _zero_where(lost, bounds.widen_nonnegative(elementary(form) + ROUNDING, u, tiny))
    total = Interval(
        numerators.lo.sum(axis=1, keepdims=True), numerators.hi.sum(axis=1, keepdims=True)
    )
    denominator = total.widen(additions(logits.lo.shape[1], form), u)
    scores = _own_share(numerators, total, lost, form)
    stored = numerators.widen_nonnegative(division(form), u, tiny * np.maximum(denominator.hi, 1.0))
    numerators = _zero_where(lost, stored)
    norm = _LOGARITHM * (np.abs(shift) + logarithm) + ELEMENTARY * logarithm
    stores = store * (np.abs(shift) + 2.0 * logarithm)  # the sum's logarithm, then the norm's
    return ScoreBounds(
        scores=_exponent_off(scores, FLOAT32.unit_roundoff * (norm + magnitude) + stores),
        numerators=numerators,
        denominator=_exponent_off(
            denominator, FLOAT32.unit_roundoff * (norm + np.abs(shift)) + stores
        ),
    )


def _cast(logits: Interval, form: FloatFormat) -> Interval:
    """Allow a cast to less than float32; that to float32 is one of ``EXPONENT``."""
    return logits.stored(form) if store_unit(form) else logits


def _exponent_off(values: Interval, slack: Floats) -> Interval:
    """Allow an absolute error of ``slack`` in the exponent of ``values``; 0 stays 0."""
    return Interval(values.lo * np.exp(-slack), values.hi * _exp(slack))


def _own_share(
    numerators: Interval, total: Interval, lost: Bools | None, form: FloatFormat
) -> Interval:
    """Divide each numerator by the row's total, which contains that same numerator.

    Where that is 0 / 0, any share is possible.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        lo = numerators.lo / (numerators.lo + np.maximum(total.hi - numerators.hi, 0.0))
        hi = numerators.hi / (numerators.hi + np.maximum(total.lo - numerators.lo, 0.0))
    quotient = Interval(np.fmax(lo, 0.0, out=lo), np.fmin(hi, 1.0, out=hi))  # NaN to 0 and to 1
    roundings = additions(numerators.lo.shape[1], form) + division(form)
    summed = quotient.widen_nonnegative(roundings, form.unit_roundoff, underflow(form))
    return summed if lost is None else _zero_where(lost & (total.lo > 0.0), summed)


def sigmoid_bounds(logits: Interval, form: FloatFormat, numerics: Numerics) -> Interval:
    """Bound ``1 / (1 + exp(-z))``: an exponential, a sum and a quotient.

    Exponential and quotient may underflow, and where the exponential overflows the quotient
    is 0. The tanh form ``(1 + tanh(z / 2)) / 2`` errs by units of 1, not of the value:
    declared as ``sigmoid="absolute"``.
    """
    u, logits = form.unit_roundoff, _cast(logits, form)
    slack = FLOAT32.unit_roundoff * EXPONENT * _magnitude(logits)
    bounds = Interval(sigmoid(logits.lo - slack), sigmoid(logits.hi + slack))
    absolute = elementary(form) * u if numerics.sigmoid == "absolute" else 0.0
    roundings = elementary(form) + division(form) + ROUNDING
    wide = bounds.widen_nonnegative(roundings, u, 2.0 * underflow(form) + absolute)
    wide = Interval(np.where(wide.lo * form.largest < 1.0, 0.0, wide.lo), wide.hi)
    return _zero_where(_lost(logits), wide)


def _sqrtsoftplus_bounds(logits: Interval, form: FloatFormat, numerics: Numerics) -> Interval:
    """Bound ``sqrt(log(1 + exp(z)))``, widened before the root and after it.

    ``softplus="absolute"`` declares ``log(1 + exp(z))`` computed as written, whose sum
    rounds by units of 1.
    """
    u, tiny, logits = form.unit_roundoff, underflow(form), _cast(logits, form)
    slack = FLOAT32.unit_roundoff * EXPONENT * _magnitude(logits)
    squares = Interval(sqrtsoftplus(logits.lo - slack) ** 2, sqrtsoftplus(logits.hi + slack) ** 2)
    absolute = elementary(form) * u if numerics.softplus == "absolute" else 0.0
    squares = squares.widen_nonnegative(
        2 * elementary(form) + 2 * ROUNDING, u, 2.0 * tiny + absolute
    )
    roots = Interval(np.sqrt(squares.lo), np.sqrt(squares.hi))
    return _zero_where(_lost(logits), roots.widen_nonnegative(elementary(form) + ROUNDING, u, tiny))


def competing_bounds(
    bounds: ScoreBounds,
    selection_bias: npt.NDArray[np.float32] | None,
    form: FloatFormat,
    numerics: Numerics,
) -> Interval:
    """Return the intervals that compete in selection, ``[T, E]``.

    Without a bias the numerators do: the denominator is common, and judging on quotients
    would hide what its rounding hides; and adding zeros rounds nothing. The bias is float32,
    so their sum is float32 or better: one monotone rounding.
    """
    if selection_bias is None or not selection_bias.any():
        competing = bounds.numerators
    else:
        competing = bounds.scores.plus(selection_bias.astype(np.float64)).stored(FLOAT32)
        competing = Interval(competing.lo - FLOAT32.tiny, competing.hi + FLOAT32.tiny)
    if numerics.select_bits is not None:
        competing = competing.widen(ROUNDING, 2.0 ** (1 - numerics.select_bits))
    return competing


def _lost(logits: Interval) -> Bools | None:
    """Return where a logit is -inf and its score exactly 0; None: nowhere."""
    lost: Bools = logits.hi == -np.inf
    return lost if lost.any() else None


def _zero_where(lost: Bools | None, bounds: Interval) -> Interval:
    if lost is None:
        return bounds
    return Interval(np.where(lost, 0.0, bounds.lo), np.where(lost, 0.0, bounds.hi))


def _magnitude(bounds: Interval) -> Floats:
    largest = np.abs(bounds.lo)
    if bounds.hi is not bounds.lo:
        largest = np.maximum(largest, np.abs(bounds.hi))
    return np.where(np.isfinite(largest), largest, 0.0)


def _exp(exponents: Floats) -> Floats:
    """Return the exponentials in place of the exponents, the largest finite number at most."""
    with np.errstate(over="ignore"):
        np.exp(exponents, out=exponents)
    return np.minimum(exponents, FLOAT64.largest, out=exponents)

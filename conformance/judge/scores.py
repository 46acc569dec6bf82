"""Which scores rounding can explain (docs/spec/judging.md, "Scores")."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.intervals import (
    ROUNDING,
    Interval,
    division,
    elementary,
    log_or_root,
    store_unit,
    underflow,
)
from moe_routing.conformance.judge.quotients import (
    EXPONENT,
    ScoreBounds,
    cast,
    lost_of,
    magnitude_of,
    zero_where,
)
from moe_routing.conformance.judge.softmax import softmax_bounds
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig
from moe_routing.reference.formats import FLOAT32, FloatFormat, Floats
from moe_routing.reference.logits import logit_op
from moe_routing.reference.scores import sigmoid, sqrtsoftplus


def operated_bounds(config: RouterConfig, logits: Interval, form: FloatFormat) -> Interval:
    """Carry logit bounds through the logit op, two roundings and a tanh at most.

    What underflows is the multiplier or its product; the quotient, the tanh or the product
    of the softcap, the first two of which are still to be multiplied by it.
    """
    u, tiny = form.unit_roundoff, underflow(form)
    if config.logit_multiplier != 1.0:
        absolute: float | Floats = tiny * (1.0 + magnitude_of(logits))
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


def sigmoid_bounds(logits: Interval, form: FloatFormat, numerics: Numerics) -> Interval:
    """Bound ``1 / (1 + exp(-z))``: an exponential, a sum and a quotient.

    Exponential and quotient may underflow, and where the exponential overflows the quotient
    is 0. In 16 bits an exponential that is units off is that of another exponent. The tanh
    form ``(1 + tanh(z / 2)) / 2`` errs by units of 1, not of the value: declared as
    ``sigmoid="absolute"``.
    """
    u, logits = form.unit_roundoff, cast(logits, form)
    slack, outside = _exponential(logits, form)
    bounds = Interval(sigmoid(logits.lo - slack), sigmoid(logits.hi + slack))
    absolute = elementary(form) * u if numerics.sigmoid == "absolute" else 0.0
    roundings = outside + division(form) + ROUNDING
    wide = bounds.widen_nonnegative(roundings, u, 2.0 * underflow(form) + absolute)
    wide = Interval(np.where(wide.lo * form.largest < 1.0, 0.0, wide.lo), wide.hi)
    return zero_where(lost_of(logits), wide)


def _sqrtsoftplus_bounds(logits: Interval, form: FloatFormat, numerics: Numerics) -> Interval:
    """Bound ``sqrt(log(1 + exp(z)))``, widened before the root and after it.

    ``softplus="absolute"`` declares ``log(1 + exp(z))`` computed as written, whose sum
    rounds by units of 1.
    """
    u, tiny, logits = form.unit_roundoff, underflow(form), cast(logits, form)
    slack, outside = _exponential(logits, form)
    squares = Interval(sqrtsoftplus(logits.lo - slack) ** 2, sqrtsoftplus(logits.hi + slack) ** 2)
    absolute = elementary(form) * u if numerics.softplus == "absolute" else 0.0
    stores = 0 if store_unit(form) else ROUNDING  # in 16 bits a store is part of each result
    roundings = outside + log_or_root(form) + ROUNDING + stores
    squares = squares.widen_nonnegative(roundings, u, 2.0 * tiny + absolute)
    roots = Interval(np.sqrt(squares.lo), np.sqrt(squares.hi))
    roots = roots.widen_nonnegative(log_or_root(form) + stores, u, tiny)
    return zero_where(lost_of(logits), roots)


def _exponential(logits: Interval, form: FloatFormat) -> tuple[Floats, float]:
    """Return the error of an exponential, in its exponent, and in units of roundoff outside it."""
    slack: Floats = FLOAT32.unit_roundoff * EXPONENT * magnitude_of(logits)
    if not store_unit(form):
        return slack, elementary(form)
    return slack - elementary(form) * np.log1p(-form.unit_roundoff), 0


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

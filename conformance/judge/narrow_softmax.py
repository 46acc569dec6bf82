"""Which softmaxes rounding can explain in 16 bits (docs/spec/judging.md, "Sixteen bits").

Two kinds of code are right: one divides by the sum, the other takes its logarithm off the
logits. A score lies in the bounds of one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.intervals import (
    ROUNDING,
    Interval,
    additions,
    division,
    elementary,
    half_ulp,
    running_additions,
    selected_additions,
    underflow,
)
from moe_routing.conformance.judge.quotients import (
    EXPONENT,
    ScoreBounds,
    cast,
    exponent_off,
    exponentials,
    lost_of,
    magnitude_of,
    own_share,
    row_sums,
    zero_where,
)
from moe_routing.reference.formats import FLOAT32, FloatFormat, Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class _Exponents:
    """The absolute errors of the exponents: each expert's own, and the row's common one.

    ``shifted [T, N]`` is that of a stored ``z - m``, ``logged [T, N]`` what a stored
    ``z - log N`` adds; ``common [T, 1]`` the stores of log N itself.
    """

    shifted: Floats
    logged: Floats
    common: Floats


def narrow_softmax_bounds(logits: Interval, form: FloatFormat, selected: bool) -> ScoreBounds:
    """Bound a softmax in 16 bits, of all experts or of the ``selected``; see ``softmax_bounds``."""
    u, tiny, logits = form.unit_roundoff, underflow(form), cast(logits, form)
    shift = logits.hi.max(axis=1, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(shift), shift, 0.0)
    shifted = _shifted(logits, shift, form)
    lost, wide = lost_of(logits), exponentials(logits, shift, shifted)
    off = _exponents(logits, shift, shifted, wide, form)
    summands = zero_where(lost, wide.widen_nonnegative(elementary(form), u, tiny))
    units = running_additions(summands, form) if selected else _of_all(summands, form)
    total, share = row_sums(summands), own_share(summands, row_sums(summands))
    logged = _by_logarithm(logits, shift, off, summands, share, form)
    scores = _either(share.widen_nonnegative(division(form), u), logged).in_units(units, u)
    scores = Interval(np.maximum(scores.lo - tiny, 0.0), scores.hi + tiny)
    if lost is not None:
        scores = zero_where(lost & (total.lo > 0.0), scores)
    summed = total.in_units(units, u)
    # the reciprocal of the sum is common to the row; a difference that is stored once more
    # stands for the product with it
    beyond = np.maximum(off.logged - np.log1p(ROUNDING * u), 0.0)
    own = exponentials(logits, shift, off.shifted + beyond)
    below = tiny * (1.0 + np.maximum(summed.hi, 1.0))  # the exponential, then the quotient
    own = own.widen_nonnegative(elementary(form) + ROUNDING, u, below)
    return ScoreBounds(
        scores=scores,
        numerators=zero_where(lost, own),
        denominator=_either(summed.widen(ROUNDING, u), exponent_off(summed, off.common)),
    )


def _of_all(summands: Interval, form: FloatFormat) -> Floats:
    return np.array([[float(additions(summands.lo.shape[1], form))]])


def _shifted(logits: Interval, shift: Floats, form: FloatFormat) -> Floats:
    """Bound the error of each stored ``z - m``: half an ulp, and that of the argument itself."""
    below = _below(logits, shift)
    rounded = FLOAT32.unit_roundoff * EXPONENT * (magnitude_of(logits) + np.abs(shift))
    return np.asarray(half_ulp(below, form) + rounded)


def _below(logits: Interval, shift: Floats) -> Floats:
    """Return how far below the maximum each logit may be, 0 where it is lost."""
    return np.where(np.isfinite(logits.lo), shift - logits.lo, 0.0)


def _exponents(
    logits: Interval, shift: Floats, shifted: Floats, wide: Interval, form: FloatFormat
) -> _Exponents:
    """Bound the errors of the exponents of a row; a store errs by half an ulp of its value.

    ``wide`` are the exponentials of the stored differences, before their own errors.
    """
    u, single = form.unit_roundoff, FLOAT32.unit_roundoff
    least = logits.lo.max(axis=1, keepdims=True, initial=-np.inf)
    apart = np.where(np.isfinite(least), shift - least, 0.0)  # of what the maximum may be
    units = max(count(logits.lo.shape[1], form) for count in (additions, selected_additions))
    slack = (units + elementary(form)) * u
    low, high = (np.log(np.maximum(bound, FLOAT32.tiny)) for bound in _ends(row_sums(wide)))
    norm = np.maximum(np.abs(shift + low), np.abs(shift + high)) + slack
    logarithm = np.maximum(high + apart, 0.0) + slack
    arguments = (_below(logits, shift) + logarithm) * (1.0 + 2.0 * u) + slack
    return _Exponents(
        shifted=shifted,
        logged=half_ulp(arguments, form) + single * EXPONENT * norm,
        common=half_ulp(norm, form) + half_ulp(logarithm, form),
    )


def _ends(values: Interval) -> tuple[Floats, Floats]:
    return values.lo, values.hi


def _by_logarithm(
    logits: Interval,
    shift: Floats,
    off: _Exponents,
    summands: Interval,
    share: Interval,
    form: FloatFormat,
) -> Interval:
    """Bound ``exp(z - log N)``: its exponential is another one than that in the sum.

    Both bounds hold: that of two exponentials apart, and that of a share in the sum, which is
    narrower where the logit itself is not known, since the logit is the same in both.
    """
    u, total = form.unit_roundoff, row_sums(summands)
    own = exponentials(logits, shift, off.shifted + off.logged)
    own = own.widen_nonnegative(elementary(form), u)
    same = exponent_off(share, off.shifted + off.logged)
    same = same.widen_nonnegative(2 * elementary(form), u)
    with np.errstate(invalid="ignore", divide="ignore"):
        lo, hi = own.lo / total.hi, own.hi / total.lo
    return exponent_off(Interval(np.fmax(lo, same.lo), np.fmin(hi, same.hi)), off.common)


def _either(one: Interval, other: Interval) -> Interval:
    """Return what lies in the bounds of either."""
    return Interval(np.minimum(one.lo, other.lo), np.maximum(one.hi, other.hi))

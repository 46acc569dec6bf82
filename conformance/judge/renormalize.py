"""Which quotients by their norm rounding can explain (docs/spec/judging.md, "Weights")."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.gather import Gathered
from moe_routing.conformance.judge.intervals import (
    POWER,
    ROUNDING,
    Interval,
    division,
    running_additions,
    selected_additions,
    store_unit,
    underflow,
)
from moe_routing.reference import Renormalize
from moe_routing.reference.formats import Bools, FloatFormat, Floats


def renormalized(
    rule: Renormalize, gathered: Gathered, form: FloatFormat
) -> tuple[Interval, Bools]:
    """Divide each weight by the norm of its row, and return which norms cannot be 0.

    A weight is part of its own norm, so each endpoint takes the same endpoint of itself
    and the opposite one of the others. The denominator of a softmax cancels; eps and
    floor, which do not contain it, are multiplied by it instead.
    """
    own, share = gathered.numerators.nonnegative(), gathered.denominator
    least, divisors = _divisors(rule, own, share, form)
    largest_powers = _powers(rule, Interval.point(own.hi), share, form).hi
    in_range = largest_powers.sum(axis=1, keepdims=True) <= form.largest * share.lo**rule.order
    decided = ((least > 0.0) & in_range & np.isfinite(divisors.hi)).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        lo, hi = own.lo / divisors.hi, own.hi / divisors.lo
    lo = np.where(decided[:, None] & np.isfinite(lo), lo, 0.0)
    # powers that underflow by themselves leave a norm too small, and so no upper bound
    most_undecided = 1.0 if rule.order == 1.0 else np.inf
    hi = np.where(decided[:, None] & ~np.isnan(hi), hi, most_undecided)
    absolute = underflow(form) * (1.0 + gathered.plain.hi)  # a quotient, or a reciprocal
    rounded = Interval(lo, hi).in_units(
        _additions(rule, own, share, form) + _of_eps(rule, least, share, form), form.unit_roundoff
    )
    return rounded.widen(_roundings(rule, form), form.unit_roundoff, absolute), decided


def _divisors(
    rule: Renormalize, own: Interval, share: Interval, form: FloatFormat
) -> tuple[Floats, Interval]:
    """Bound the divisor of each row from below, and that of each weight at its endpoints.

    The latter's ``lo`` goes with the upper endpoint of the weight, its ``hi`` with the lower.
    """
    eps, floor = guard(rule.eps, form), guard(rule.floor, form)
    low, high = (_powers(rule, Interval.point(x), share, form) for x in (own.lo, own.hi))
    total = low.lo.sum(axis=1, keepdims=True)
    at_hi = np.maximum(total - low.lo, 0.0) + high.lo
    at_lo = np.maximum(high.hi.sum(axis=1, keepdims=True) - high.hi, 0.0) + low.hi
    below = 0.0 if rule.order == 1.0 else underflow(form) * share.hi  # sums are exact, roots not
    least, lo = (
        np.maximum(
            np.maximum(_root(rule, norm) - below, 0.0) + eps.lo * share.lo, floor.lo * share.lo
        )
        for norm in (total, at_hi)
    )
    hi = np.maximum(_root(rule, at_lo) + below + eps.hi * share.hi, floor.hi * share.hi)
    return least, Interval(lo, hi)


def _additions(rule: Renormalize, own: Interval, share: Interval, form: FloatFormat) -> Floats:
    """Count the additions, divided by the order in the root; in float32 that of eps is one of K."""
    units = np.array([[float(selected_additions(own.lo.shape[1], form))]])
    if store_unit(form):
        units = running_additions(_powers(rule, own, share, form), form)
    return np.asarray(units * max(1.0, 1.0 / rule.order))


def _of_eps(rule: Renormalize, divisor: Floats, share: Interval, form: FloatFormat) -> Floats:
    """Count, in 16 bits, the addition of eps to a stored norm: it errs by eps at most."""
    if not store_unit(form):
        return np.zeros((1, 1))
    eps = guard(rule.eps, form).hi * share.hi
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.fmin(eps / (form.unit_roundoff * divisor), ROUNDING)


def _roundings(rule: Renormalize, form: FloatFormat) -> int:
    """Count the root, where there is one, and the quotient."""
    return division(form) + (POWER if rule.order != 1.0 else 0)


def guard(value: float, form: FloatFormat) -> Interval:
    """Bound eps or floor once it is stored in ``form`` and added: 0 is exactly 0.

    The storage is one rounding. Below the normal range it is absolute, and so is that of
    the sum with eps (in the normal range that one is counted with the norm's additions).
    """
    stored = Interval.point(value).widen(ROUNDING, form.unit_roundoff, 2.0 * underflow(form))
    return stored.nonnegative() if value else Interval.point(value)


def _powers(rule: Renormalize, values: Interval, share: Interval, form: FloatFormat) -> Interval:
    """Bound the powers that the norm sums; order 1 computes none."""
    if rule.order == 1.0:
        return values
    powers = Interval(values.lo**rule.order, values.hi**rule.order)
    tiny = underflow(form) * share.hi**rule.order
    return powers.widen(POWER, form.unit_roundoff, tiny).nonnegative()


def _root(rule: Renormalize, powers: Floats) -> Floats:
    return powers if rule.order == 1.0 else powers ** (1.0 / rule.order)

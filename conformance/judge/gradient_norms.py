"""Balls of the gradient of gathered weights, through their norm (docs/spec/judging.md, "Norms").

All is in units of the numerators: ``w = n / d`` with ``n`` the numerators and ``d`` their norm, eps
and floor multiplied by the softmax's denominator N, which else cancels. So N's own roundings,
one for each expert, stay out of what they cancel in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.balls import Ball, add, rounded
from moe_routing.conformance.judge.gradient_balls import (
    added,
    around,
    ends,
    less,
    over,
    times,
    undecided,
    where,
)
from moe_routing.conformance.judge.intervals import (
    POWER,
    ROUNDING,
    Interval,
    underflow,
)
from moe_routing.conformance.judge.renormalize import guard
from moe_routing.reference import Renormalize
from moe_routing.reference.formats import Bools, FloatFormat, Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Normed:
    """The gradient of the numerators ``[T, K]``, and the rows in which it is decided."""

    gradient: Ball
    decided: Bools


def through_norm(
    rule: Renormalize, at: Ball, own: Interval, share: Interval, form: FloatFormat
) -> Normed:
    """Carry ``at [T, K]``, the gradient of the weights, through the division by their norm.

    ``own [T, K]`` are the numerators, ``share [T, 1]`` their denominator N. Decided where the
    square of the divisor, which some code divides by, is far enough above the subnormal range,
    and no part overflows.
    """
    n = around(own.nonnegative())
    norm, divisor, floored = _divisor(rule, n, share, form)
    least = (divisor.mid - divisor.rad) / share.hi
    decided = (least > 0.0) & (least * least * form.unit_roundoff > underflow(form))
    direct = over(at, divisor, form)
    parts = times(at, over(over(n, divisor, form), divisor, form), form)
    shared = added(parts, form)
    slope = _slope(rule, n, norm, least, form)
    power = np.minimum(np.where(decided, least, 1.0) ** max(rule.order - 1.0, 0.0), 1.0)
    most = direct.reach.max(axis=1, keepdims=True, initial=0.0)
    most = np.maximum(most, parts.reach.sum(axis=1, keepdims=True) / power)
    decided &= most * share.hi < form.largest / 4.0
    through = times(shared, slope, form, 2 * ROUNDING) if rule.order != 1.0 else shared
    both = less(direct, through, form)
    either = ~floored.yes & ~floored.no
    gradient = undecided(where(floored.yes, direct, both), either | ~decided)
    return Normed(gradient=gradient, decided=(decided & ~either)[:, 0])


@dataclass(frozen=True, eq=False)
class _Floored:
    """Where the divisor is the floor for certain, ``[T, 1]``, and where it is the norm."""

    yes: Bools
    no: Bools


def _divisor(
    rule: Renormalize, n: Ball, share: Interval, form: FloatFormat
) -> tuple[Ball, Ball, _Floored]:
    """Return the norm, the divisor, and which of them is the floor."""
    norm = _norm(rule, n, share, form)
    divisor = norm
    if rule.eps:
        divisor = add(norm, _in_units(rule.eps, share, form), form)
    never = np.zeros(norm.mid.shape, dtype=bool)
    if not rule.floor:
        return norm, divisor, _Floored(never, ~never)
    floor = _in_units(rule.floor, share, form)
    yes = divisor.mid + divisor.rad < floor.mid - floor.rad
    no = divisor.mid - divisor.rad > floor.mid + floor.rad
    return norm, where(yes, floor, divisor), _Floored(yes, no)


def _in_units(value: float, share: Interval, form: FloatFormat) -> Ball:
    """Return eps or the floor as stored, times the denominator."""
    stored = guard(value, form)
    return around(Interval(stored.lo * share.lo, stored.hi * share.hi))


def _norm(rule: Renormalize, n: Ball, share: Interval, form: FloatFormat) -> Ball:
    if rule.order == 1.0:
        return added(n, form)
    order, below = rule.order, underflow(form)
    powers = _raised(n, order, form)
    total = added(Ball(powers.mid, powers.rad + below * share.hi**order), form)
    root = _raised(total, 1.0 / order, form)
    return Ball(root.mid, root.rad + below * share.hi)


def _raised(values: Ball, order: float, form: FloatFormat) -> Ball:
    """Return a power of numbers that are not negative; undecided where it has no bound."""
    both = ends(values).nonnegative()
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        low, high = both.lo**order, both.hi**order
        found = around(Interval(np.minimum(low, high), np.maximum(low, high)))
    return undecided(rounded(found, form, POWER), ~values.decided)


def _slope(rule: Renormalize, n: Ball, norm: Ball, least: Floats, form: FloatFormat) -> Ball:
    """Return the slope of the norm by each number, ``(n / norm)**(order - 1)``.

    Of order 1 it is 1. Powers of number and norm may be taken apart, and underflow by themselves.
    """
    if rule.order == 1.0:
        return Ball.exact(np.ones_like(n.mid))
    power = rule.order - 1.0
    ratio = over(n, norm, form)
    slope = rounded(_raised(ratio, power, form), form, POWER + ROUNDING)
    with np.errstate(divide="ignore", over="ignore"):
        apart = underflow(form) / np.where(least > 0.0, least, np.inf) ** max(power, 1.0)
    return Ball(slope.mid, slope.rad + apart)

"""Which softmaxes rounding can explain (docs/spec/judging.md, "Scores")."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.intervals import (
    DIVISION,
    ELEMENTARY,
    ROUNDING,
    Interval,
    additions,
    store_unit,
    underflow,
)
from moe_routing.conformance.judge.narrow_softmax import narrow_softmax_bounds
from moe_routing.conformance.judge.quotients import (
    EXPONENT,
    ScoreBounds,
    exponent_off,
    exponentials,
    lost_of,
    magnitude_of,
    own_share,
    row_sums,
    zero_where,
)
from moe_routing.reference.formats import FLOAT32, Bools, FloatFormat, Floats, Ids

_LOGARITHM = 2
"""Roundings of a norm stored as its logarithm, besides the logarithm's own: the sum with the
maximum, and its storage; the logit that it is taken from adds one of its own."""


def softmax_bounds(
    logits: Interval, form: FloatFormat, *, selected: bool = False, at: Ids | None = None
) -> ScoreBounds:
    """Bound a softmax over the last axis of ``[T, N]``.

    Numerators are ``exp(z - m)`` with m the row's greatest upper bound: a backend's own
    shift differs by a factor that is common to the row. The argument's rounding is
    absolute in the exponent, ``4 u32 (|z| + |m|)``. So is that of a norm stored as its
    logarithm, which the quotients allow for a second time. A -inf logit has the numerator 0,
    exactly. Rows of -inf alone, or with +inf, are NaN in every backend; here they get [0, 1],
    and the caller must not judge them. Whether it is of the ``selected`` experts counts in
    16 bits only. ``at [T, K]`` are the columns that are wanted; none given, all are.
    """
    if store_unit(form):
        made = narrow_softmax_bounds(logits, form, selected)
        return made if at is None else made.at(at)
    shift = logits.hi.max(axis=1, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(shift), shift, 0.0)
    magnitude, lost = magnitude_of(logits), lost_of(logits)
    numerators = _numerators(logits, shift, magnitude, lost, form)
    total = row_sums(numerators)
    if at is not None:
        numerators, magnitude = numerators.at(at), np.take_along_axis(magnitude, at, axis=1)
        lost = None if lost is None else np.take_along_axis(lost, at, axis=1)
    return _quotients(numerators, magnitude, lost, shift, total, logits.lo.shape[1], form)


def softmax_of_columns(
    logits: Interval, shift: Floats, others: Floats, experts: int, form: FloatFormat
) -> ScoreBounds:
    """Bound the columns ``[T, K]`` of a softmax over so many ``experts``, not computed in 16 bits.

    ``shift [T, 1]`` is the greatest logit of each row; ``others [T, K]`` are sums of the numerators
    of all other experts, as points.
    """
    magnitude, lost = magnitude_of(logits), lost_of(logits)
    numerators = _numerators(logits, shift, magnitude, lost, form)
    total = numerators.each(lambda bound: others + bound)
    return _quotients(numerators, magnitude, lost, shift, total, experts, form)


def _numerators(
    logits: Interval, shift: Floats, magnitude: Floats, lost: Bools | None, form: FloatFormat
) -> Interval:
    slack = FLOAT32.unit_roundoff * EXPONENT * (magnitude + np.abs(shift))
    bounds = exponentials(logits, shift, slack)
    wide = bounds.widen_nonnegative(ELEMENTARY + ROUNDING, form.unit_roundoff, underflow(form))
    return zero_where(lost, wide)


def _quotients(
    numerators: Interval,
    magnitude: Floats,
    lost: Bools | None,
    shift: Floats,
    total: Interval,
    experts: int,
    form: FloatFormat,
) -> ScoreBounds:
    """Divide numerators, of all experts or of some, by the ``total`` of all."""
    u, tiny, units = form.unit_roundoff, underflow(form), additions(experts, form)
    logarithm = np.log(experts)
    denominator = total.widen(units, u)
    scores = own_share(numerators, total).widen_nonnegative(units + DIVISION, u, tiny)
    if lost is not None:
        scores = zero_where(lost & (total.lo > 0.0), scores)
    stored = numerators.widen_nonnegative(DIVISION, u, tiny * np.maximum(denominator.hi, 1.0))
    norm = _LOGARITHM * (np.abs(shift) + logarithm) + ELEMENTARY * logarithm
    unit = FLOAT32.unit_roundoff
    return ScoreBounds(
        scores=exponent_off(scores, unit * (norm + magnitude)),
        numerators=zero_where(lost, stored),
        denominator=exponent_off(denominator, unit * (norm + np.abs(shift))),
    )

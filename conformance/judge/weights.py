"""Which weights rounding can explain, at the backend's own ids (docs/spec/judging.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.intervals import (
    DIVISION,
    POWER,
    ROUNDING,
    Interval,
    underflow,
)
from moe_routing.conformance.judge.scores import (
    EXPONENT,
    ScoreBounds,
    sigmoid_bounds,
    softmax_bounds,
)
from moe_routing.conformance.judge.selection import certain_groups, possible_groups
from moe_routing.implementations import Numerics
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs
from moe_routing.reference.formats import FloatFormat, Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightBounds:
    """The permitted weights ``[T, K]``.

    Where ``decided [T]`` is False the norm may be 0: any weight within the bounds, or
    NaN, is right, and nothing was learnt.
    """

    permitted: Interval
    decided: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Gathered:
    """Weights before renormalisation, as quotients; ``plain`` are the quotients."""

    plain: Interval
    numerators: Interval
    denominator: Interval
    decided: npt.NDArray[np.bool_]


def weight_bounds(
    config: RouterConfig,
    inputs: RouterInputs,
    operated: Interval,
    scores: ScoreBounds,
    competing: Interval,
    expert_ids: npt.NDArray[np.int64],
    numerics: Numerics,
    *,
    score_format: FloatFormat,
    weight_format: FloatFormat,
) -> WeightBounds:
    """Bound the weights at ``expert_ids [T, K]`` (in range), stage by stage.

    ``operated``, ``scores`` and ``competing`` are the bounds ``[T, E]`` of the stages
    before. Stages run in ``score_format``; the last cast is to ``weight_format``.
    """
    gathered = _gather(config, operated, scores, competing, expert_ids, numerics, score_format)
    weights, decided = gathered.plain, gathered.decided
    if config.renormalize is not None:
        weights, positive = renormalized(config.renormalize, gathered, score_format)
        decided = decided & positive
    u, tiny = score_format.unit_roundoff, score_format.tiny
    if config.scale != 1.0:
        weights = weights.times(config.scale).widen(ROUNDING, u, tiny)
    if inputs.per_expert_scale is not None:
        factors = inputs.per_expert_scale.astype(np.float64)[expert_ids]
        weights = weights.times(factors).widen(ROUNDING, u, tiny)
    weights = weights.widen(ROUNDING, weight_format.unit_roundoff, weight_format.tiny)
    overflow = weight_format.largest
    return WeightBounds(
        permitted=Interval(
            np.where(weights.lo < -overflow, -np.inf, weights.lo),
            np.where(weights.hi > overflow, np.inf, weights.hi),
        ),
        decided=decided,
    )


def _gather(
    config: RouterConfig,
    operated: Interval,
    scores: ScoreBounds,
    competing: Interval,
    expert_ids: npt.NDArray[np.int64],
    numerics: Numerics,
    form: FloatFormat,
) -> _Gathered:
    ones = Interval.point(np.ones((len(expert_ids), 1)))
    always = np.ones(len(expert_ids), dtype=bool)
    if config.weights_from == "softmax_of_selected":
        selected = softmax_bounds(operated.at(expert_ids), form)
        some = ~np.isneginf(operated.at(expert_ids).hi).all(axis=1)  # else 0 / 0
        plain = selected.scores
        return _Gathered(plain=plain, numerators=plain, denominator=ones, decided=some)
    if config.weights_from == "sigmoid_of_selected":
        plain = sigmoid_bounds(operated.at(expert_ids), form, numerics)
        return _Gathered(plain=plain, numerators=plain, denominator=ones, decided=always)
    plain, numerators = scores.scores, scores.numerators
    if config.weights_from == "masked_scores" and config.groups is not None:
        plain, numerators = (_masked(config, competing, x, form) for x in (plain, numerators))
    return _Gathered(
        plain=plain.at(expert_ids),
        numerators=numerators.at(expert_ids),
        denominator=scores.denominator,
        decided=always,
    )


def _masked(
    config: RouterConfig, competing: Interval, values: Interval, form: FloatFormat
) -> Interval:
    """Keep a score where its group is certainly kept, 0 where it certainly is not, else both."""
    size = config.experts_per_group
    kept, _ = certain_groups(competing, config.groups, form)
    possible = possible_groups(competing, config.groups, form)
    kept, possible = (np.repeat(mask, size, axis=1) for mask in (kept, possible))
    return Interval(np.where(kept, values.lo, 0.0), np.where(possible, values.hi, 0.0))


def renormalized(
    rule: Renormalize, gathered: _Gathered, form: FloatFormat
) -> tuple[Interval, npt.NDArray[np.bool_]]:
    """Divide each weight by the norm of its row, and tell which norms cannot be 0.

    A weight is part of its own norm, so each endpoint takes the same endpoint of itself
    and the opposite one of the others. The denominator of a softmax cancels; eps and
    floor, which do not contain it, are multiplied by it instead.
    """
    u, tiny = form.unit_roundoff, form.tiny
    eps, floor = guard(rule.eps, form), guard(rule.floor, form)
    own, share = gathered.numerators.nonnegative(), gathered.denominator
    low, high = (_powers(rule, Interval.point(x), share, form) for x in (own.lo, own.hi))
    least, most = low.lo.sum(axis=1, keepdims=True), high.hi.sum(axis=1, keepdims=True)
    beside_hi = _root(rule, np.maximum(least - low.lo, 0.0) + high.lo)
    beside_lo = _root(rule, np.maximum(most - high.hi, 0.0) + low.hi)
    lower = np.maximum(beside_hi + eps.lo * share.lo, floor.lo * share.lo)
    upper = np.maximum(beside_lo + eps.hi * share.hi, floor.hi * share.hi)
    roundings = own.lo.shape[1] * max(1.0, 1.0 / rule.order) + DIVISION
    if rule.order != 1.0:
        roundings += POWER
    with np.errstate(invalid="ignore", divide="ignore"):
        lo, hi = own.lo / upper, own.hi / lower
    in_range = most <= form.largest * share.lo**rule.order  # else the sum may be infinite
    positive = np.maximum(least, np.maximum(eps.lo, floor.lo) * share.lo) > 0.0
    decided = (positive & in_range)[:, 0] & np.isfinite(upper).all(axis=1)
    lo = np.where(decided[:, None] & np.isfinite(lo), lo, 0.0)
    # powers that underflow by themselves leave a norm too small, and so no upper bound
    most_undecided = 1.0 if rule.order == 1.0 else np.inf
    hi = np.where(decided[:, None] & ~np.isnan(hi), hi, most_undecided)
    return Interval(lo, hi).widen(roundings, u, tiny), decided


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
    tiny = form.tiny * share.hi**rule.order
    return powers.widen(POWER, form.unit_roundoff, tiny).nonnegative()


def _root(rule: Renormalize, powers: Floats) -> Floats:
    return powers if rule.order == 1.0 else powers ** (1.0 / rule.order)


def sum_bounds(
    config: RouterConfig,
    operated: Interval,
    scores: ScoreBounds,
    competing: Interval,
    expert_ids: npt.NDArray[np.int64],
    numerics: Numerics,
    *,
    score_format: FloatFormat,
    weight_format: FloatFormat,
) -> WeightBounds:
    """Bound the sum ``[T]`` of plainly renormalised weights: the scale, and roundings.

    The quotients share their numerators with the norm, so the numerators' own errors
    cancel: ``norm / (norm + eps)``, which grows with the norm. What stays is K additions,
    that of eps, the quotient, the scale, and the cast. A softmax may be normalised by a
    separately computed logarithm of the norm, whose rounding is absolute in the exponent.
    Decided only where the norm lies far enough above the subnormal range.
    """
    form, u, k = score_format, score_format.unit_roundoff, config.top_k
    largest = np.maximum(np.abs(operated.lo), np.abs(operated.hi))
    largest = np.where(np.isfinite(largest), largest, 0.0).max(axis=1, initial=0.0)
    softmax = config.score == "softmax" or config.weights_from == "softmax_of_selected"
    slack = u * EXPONENT * 2.0 * largest if softmax else np.zeros(len(largest))
    gathered = _gather(config, operated, scores, competing, expert_ids, numerics, form)
    norm = gathered.plain.nonnegative()
    norm = Interval(norm.lo.sum(axis=1), norm.hi.sum(axis=1))
    eps = guard(config.renormalize.eps if config.renormalize else 0.0, form)
    one = Interval(norm.lo / (norm.lo + eps.hi), norm.hi / (norm.hi + eps.lo))
    one = Interval(one.lo * np.exp(-slack), one.hi * np.exp(slack))
    one = one.widen(k + DIVISION + POWER + ROUNDING, u)
    absolute = k * (form.tiny * (1.0 + abs(config.scale)) + weight_format.tiny)
    sums = one.times(config.scale).widen(ROUNDING, weight_format.unit_roundoff, absolute)
    return WeightBounds(permitted=sums, decided=norm.lo * u >= form.tiny)

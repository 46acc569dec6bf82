"""Which weights rounding can explain, at the backend's own ids (docs/spec/judging.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.gather import gather
from moe_routing.conformance.judge.intervals import (
    POWER,
    ROUNDING,
    Interval,
    division,
    store_unit,
    underflow,
)
from moe_routing.conformance.judge.renormalize import guard, renormalized
from moe_routing.conformance.judge.scores import EXPONENT
from moe_routing.reference.formats import FLOAT32, Bools, Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightBounds:
    """The permitted weights ``[T, K]``.

    Where ``decided [T]`` is False the norm may be 0: any weight within the bounds, or
    NaN, is right, and nothing was learnt.
    """

    permitted: Interval
    decided: Bools


def weight_bounds(bounds: Bounds, later: SelectionBounds, expert_ids: Ids) -> WeightBounds:
    """Bound the weights at ``expert_ids [T, K]`` (in range), stage by stage.

    ``later`` are the bounds of the stages before. Stages run in the precision of the scores;
    the last cast is to that of the weights.
    """
    config, inputs = bounds.config, bounds.inputs
    score_format, weight_format = bounds.score_format, bounds.weight_format
    gathered = gather(bounds, later, expert_ids)
    weights, decided = gathered.plain, gathered.decided
    if config.renormalize is not None:
        weights, positive = renormalized(config.renormalize, gathered, score_format)
        decided = decided & positive
    u, tiny = score_format.unit_roundoff, underflow(score_format)
    if config.scale != 1.0:  # a constant and a product; or the scale over the norm comes first
        absolute = tiny * (2.0 + gathered.plain.hi)
        weights = weights.times(config.scale).widen(2 * ROUNDING, u, absolute)
    if inputs.per_expert_scale is not None:
        factors = inputs.per_expert_scale.astype(np.float64)[expert_ids]
        weights = weights.times(factors).widen(ROUNDING, u, tiny)
    weights = weights.widen(ROUNDING, weight_format.unit_roundoff, underflow(weight_format))
    overflow = weight_format.largest
    return WeightBounds(
        permitted=Interval(
            np.where(weights.lo < -overflow, -np.inf, weights.lo),
            np.where(weights.hi > overflow, np.inf, weights.hi),
        ),
        decided=decided,
    )


def sum_bounds(bounds: Bounds, later: SelectionBounds, expert_ids: Ids) -> WeightBounds:
    """Bound the sum ``[T]`` of plainly renormalised weights: the scale, and roundings.

    The quotients share their numerators with the norm, so the numerators' own errors
    cancel: ``norm / (norm + eps)``, which grows with the norm. What stays is K additions,
    that of eps, the quotient, the scale, and the cast. A softmax may be normalised by a
    separately computed logarithm of the norm, whose rounding is absolute in the exponent.
    Decided only where the norm lies far enough above the subnormal range.
    """
    config, operated = bounds.config, later.operated
    form, weight_format = bounds.score_format, bounds.weight_format
    u, k = form.unit_roundoff, config.top_k
    largest = np.maximum(np.abs(operated.lo), np.abs(operated.hi))
    largest = np.where(np.isfinite(largest), largest, 0.0).max(axis=1, initial=0.0)
    softmax = config.score == "softmax" or config.weights_from == "softmax_of_selected"
    slack = FLOAT32.unit_roundoff * EXPONENT * 2.0 * largest
    slack = slack + store_unit(form) * (largest + 4.0 * np.log(k))
    slack = slack if softmax else np.zeros(len(largest))
    gathered = gather(bounds, later, expert_ids)
    norm = gathered.plain.nonnegative()
    norm = Interval(norm.lo.sum(axis=1), norm.hi.sum(axis=1))
    eps = guard(config.renormalize.eps if config.renormalize else 0.0, form)
    one = Interval(norm.lo / (norm.lo + eps.hi), norm.hi / (norm.hi + eps.lo))
    one = Interval(one.lo * np.exp(-slack), one.hi * np.exp(slack))
    one = one.widen(k + division(form) + POWER + ROUNDING, u)
    tiny = underflow(form) * (2.0 + norm.hi) * (1.0 + abs(config.scale))
    absolute = k * (tiny + underflow(weight_format))
    sums = one.times(config.scale).widen(ROUNDING, weight_format.unit_roundoff, absolute)
    return WeightBounds(permitted=sums, decided=norm.lo * u >= k * underflow(form))

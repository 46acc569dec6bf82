"""The answers that need no intervals: experts and weights that exact arithmetic explains.

All are certain: what is right here is right for the judge (docs/traces.md). Nearly every token
of an honest trace is settled so, in a few passes over its logits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.points import chosen_by
from moe_routing.conformance.traces.dtypes import AnyArray
from moe_routing.conformance.traces.router import Router
from moe_routing.reference import Renormalize, RouterConfig
from moe_routing.reference.formats import FLOAT32, Bools, Floats, Ids
from moe_routing.reference.logits import logit_op
from moe_routing.reference.scores import SCORE_FUNCTIONS, sigmoid
from moe_routing.reference.weights import renormalize

_UNITS = 3
"""Units of roundoff of float32 by which an exact weight may be missed, and still be permitted:
the judge gives every quotient four (DIVISION), here less the product of these with the store."""


Around = Callable[[Ids | None], Interval]
"""Bounds the routed logits of some tokens: all, or those at ``ids [n, K]``."""


def _allowed(router: Router) -> float:
    """Return by how much, relative, an exact weight may be missed and is certainly permitted.

    Weights of less than float32 throughout are stored once at least.
    """
    recorded = max(router.record_of_weights[0], router.weight_format.unit_roundoff)
    if router.score_format.precision < FLOAT32.precision:
        return router.score_format.unit_roundoff
    return _UNITS * FLOAT32.unit_roundoff + recorded


def exactly_chosen(router: Router, logits: AnyArray, ids: Ids) -> Bools:
    """Return, per token, whether ``logits`` choose ``ids [T, K]``: distinct, in range."""
    config = router.config
    plain = config.logit_softcap is None and config.logit_multiplier > 0.0
    if plain and router.selection_bias is None and config.groups is None:
        return _greatest(logits, ids)
    return chosen_by(config, router.later_of_nothing, logits.astype(np.float64), ids)


def _greatest(logits: AnyArray, ids: Ids) -> Bools:
    """Return whether no logit that was left out is greater than one that was chosen."""
    rows = np.arange(len(ids))[:, None]
    least = logits[rows, ids].min(axis=1)
    rest = logits.copy()
    rest[rows, ids] = -np.inf
    fine: Bools = rest.max(axis=1) <= least
    return fine


def nearly_exact(router: Router, logits: AnyArray, ids: Ids, weights: Floats) -> Bools:
    """Return, per token, whether its weights are those of exact arithmetic, all but roundings."""
    exact = _weights(router, logits, ids)
    near = np.abs(weights - exact) <= np.abs(exact) * _allowed(router)
    return np.asarray(near.all(axis=1))


def nearly_between(router: Router, around: Around, ids: Ids, weights: Floats) -> Bools:
    """Return, per token, whether exact arithmetic on some logits explains its weights.

    ``around`` bounds the logits. Certain where True; False also where it would take more than a
    softmax and its norm.
    """
    ends = _shares_between(router.judged_config, around, ids)
    if ends is None:
        return np.zeros(len(ids), dtype=bool)
    factor: Floats = np.full(ids.shape, router.config.scale)
    if router.per_expert_scale is not None:
        factor = factor * router.per_expert_scale.astype(np.float64)[ids]
    one, other = ends[0] * factor, ends[1] * factor
    lo, hi = np.minimum(one, other), np.maximum(one, other)
    allowed = _allowed(router)
    near = (weights >= lo - np.abs(lo) * allowed) & (weights <= hi + np.abs(hi) * allowed)
    return np.asarray(near.all(axis=1))


def _shares_between(config: RouterConfig, around: Around, ids: Ids) -> tuple[Floats, Floats] | None:
    """Return the least and the greatest shares that a softmax has at ``ids``, None for no softmax.

    Each is part of its own norm: the least of it goes with the greatest of all others.
    """
    plain = config.logit_softcap is None and config.logit_multiplier == 1.0
    softmax = config.score == "softmax" and config.weights_from == "scores"
    selected = config.weights_from == "softmax_of_selected"
    if not plain or not (softmax or selected) or config.scores_dtype != "float32":
        return None
    if config.renormalize not in ((None, Renormalize()) if softmax else (None,)):
        return None
    if selected or config.renormalize is not None:
        at = around(ids)
        shift = at.hi.max(axis=1, keepdims=True)
        lo, hi = np.exp(at.lo - shift), np.exp(at.hi - shift)
        sums = lo.sum(axis=1, keepdims=True), hi.sum(axis=1, keepdims=True)
    else:
        at, rows = around(None), np.arange(len(ids))[:, None]
        shift = at.hi.max(axis=1, keepdims=True)
        every = np.exp(at.lo - shift), np.exp(at.hi - shift)
        lo, hi = every[0][rows, ids], every[1][rows, ids]
        sums = every[0].sum(axis=1, keepdims=True), every[1].sum(axis=1, keepdims=True)
    return lo / (lo + (sums[1] - hi)), hi / (hi + (sums[0] - lo))


def _weights(router: Router, logits: AnyArray, ids: Ids) -> Floats:
    """Return the exact weights at ``ids``; NaN where they take more than their own scores."""
    config, rows = router.judged_config, np.arange(len(ids))[:, None]
    at = logit_op(config, logits[rows, ids].astype(np.float64))
    shares = renormalize(config.renormalize, _gathered(config, logits, at))
    shares = shares * config.scale
    if router.per_expert_scale is not None:
        shares = shares * router.per_expert_scale.astype(np.float64)[ids]
    return shares


def _gathered(config: RouterConfig, logits: AnyArray, at: Floats) -> Floats:
    if config.weights_from == "masked_scores" and config.groups is not None:
        return np.full(at.shape, np.nan)
    if config.weights_from == "softmax_of_selected":
        own = _numerators(at)
        return np.asarray(own / own.sum(axis=1, keepdims=True))
    if config.weights_from == "sigmoid_of_selected":
        return sigmoid(at)
    if config.score != "softmax":
        return SCORE_FUNCTIONS[config.score](at)
    rule = config.renormalize
    if rule is not None and rule == Renormalize(order=rule.order):
        return _numerators(at)  # the denominator of a softmax cancels in its norm
    every = logit_op(config, logits.astype(np.float64))
    shift = every.max(axis=1, keepdims=True)
    shares: Floats = np.exp(at - shift) / np.exp(every - shift).sum(axis=1, keepdims=True)
    return shares


def _numerators(at: Floats) -> Floats:
    exponentials: Floats = np.exp(at - at.max(axis=1, keepdims=True))
    return exponentials

"""Gradients of logits that certainly are permitted: the point, and a part of its radius.

Of float32 softmaxes and sigmoids, plain or renormalised, the gradient is a line of algebra. What
the walk of ``logit_gradients`` adds to its radius is no less than a few roundings of its parts, so
that an answer within those needs no walk. Derivations: docs/spec/judging.md, "What certainly lies
within".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.balls import UNIT
from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.intervals import DIVISION, ELEMENTARY, store_unit
from moe_routing.reference import Renormalize, RouterConfig
from moe_routing.reference.formats import FloatFormat, Floats, Ids
from moe_routing.reference.scores import sigmoid

_KEPT = 7.0 / 8.0
"""What is used of a radius; the rest is more than the centre of an interval is off, which is of
second order in its width."""

_STORED = 1.0 - 2.0**-10
"""The same of a store, in proportion to a centre that is off by far less."""

_LEAST = 2.0**-40
"""A norm above which nothing on the way leaves float32."""

_SELECTED = ("softmax_of_selected", "sigmoid_of_selected")

_SCORE = ELEMENTARY + DIVISION + 1
"""Units of a sigmoid or a numerator: its exponential, a sum or a store, a quotient."""


@dataclass(frozen=True, eq=False)
class Points:
    """Gradients at ``ids [T, K]``, and of all experts ``[T, E]``, each with a part of its radius.

    ``rest`` of an expert that no slot holds is None where it is 0.
    """

    at: Floats
    at_radius: Floats
    rest: Floats | None = None
    rest_radius: Floats | None = None


def points_of(bounds: Bounds, logits: Floats, ids: Ids, cotangent: Floats) -> Points | None:
    """Return the gradients of a plain call of calm ``logits`` and distinct ``ids``; else None.

    Calm are calls of which ``certain_rows`` says that nothing in them leaves its range.
    """
    if not _plain(bounds.config, bounds):
        return None
    with np.errstate(all="ignore"):
        return _points(bounds.config, logits, ids, _unscaled(bounds, ids, cotangent))


def _plain(config: RouterConfig, bounds: Bounds) -> bool:
    """Whether the call has no stage that is not made here."""
    rule, softmax = config.renormalize, _is_softmax(config)
    normed = rule is None or (
        (rule.order, rule.floor) == (1.0, 0.0) and (rule.eps == 0.0 or not softmax)
    )
    return (
        normed
        and not store_unit(bounds.score_format)
        and config.weights_from != "masked_scores"
        and (config.score in ("softmax", "sigmoid") or config.weights_from in _SELECTED)
        and not (rule is not None and config.weights_from == "softmax_of_selected")
        and (config.logit_multiplier, config.logit_softcap) == (1.0, None)
        and config.input_norm is None
    )


def _is_softmax(config: RouterConfig) -> bool:
    if config.weights_from in _SELECTED:
        return config.weights_from == "softmax_of_selected"
    return config.score == "softmax"


def _unscaled(bounds: Bounds, ids: Ids, cotangent: Floats) -> Floats:
    """Return the gradient of the weights before their scales, ``[T, K]``."""
    at = np.take_along_axis(cotangent, ids, axis=1)
    scales = bounds.inputs.per_expert_scale
    at = at if scales is None else at * scales[ids]
    return at if bounds.config.scale == 1.0 else at * bounds.config.scale


def _points(config: RouterConfig, logits: Floats, ids: Ids, at: Floats) -> Points | None:
    if not _is_softmax(config):
        z = np.take_along_axis(logits, ids, axis=1)
        return _of_sigmoid(config.renormalize, sigmoid(z), at)
    if config.weights_from == "softmax_of_selected":
        logits = np.take_along_axis(logits, ids, axis=1)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    total = shares.sum(axis=1, keepdims=True)
    shares /= total
    if config.weights_from == "softmax_of_selected":
        return Points(*_by_softmax(shares, at, _one(shares, at)))
    own = np.take_along_axis(shares, ids, axis=1)
    if config.renormalize is None:
        return _of_softmax(shares, own, at)
    return _of_normed_softmax(shares, own, at)


@dataclass(frozen=True, eq=False)
class _Mean:
    """The sum of the products of shares and gradients, ``[T, 1]``, and of their magnitudes.

    ``units`` are those of one share, its norm among them.
    """

    value: Floats
    magnitude: Floats
    units: float


def _one(own: Floats, at: Floats, experts: int | None = None) -> _Mean:
    products = own * at
    units = ((experts or own.shape[1]) + DIVISION) * UNIT
    magnitude = np.abs(products).sum(axis=1, keepdims=True)
    return _Mean(products.sum(axis=1, keepdims=True), magnitude, units)


def _by_softmax(shares: Floats, at: Floats, mean: _Mean) -> tuple[Floats, Floats]:
    """Return ``w (g - m)``: the parts twice rounded, the shares of the difference and the mean."""
    rest = at - mean.value
    parts = 2.0 * UNIT * (np.abs(at) + np.abs(mean.value))
    radius = shares * (parts + mean.units * (np.abs(rest) + mean.magnitude))
    return shares * rest, radius


def _of_softmax(shares: Floats, own: Floats, at: Floats) -> Points:
    mean = _one(own, at, shares.shape[1])
    size = np.abs(mean.value)
    factor = (2.0 * UNIT + mean.units) * size + mean.units * mean.magnitude
    return Points(*_by_softmax(own, at, mean), -shares * mean.value, shares * factor)


def _of_normed_softmax(shares: Floats, own: Floats, at: Floats) -> Points | None:
    """Return ``w (g - m)`` of the selected, with the roundings of ``through_norm`` (order 1)."""
    norm, k = own.sum(axis=1, keepdims=True), own.shape[1]
    if not (norm >= _LEAST).all():
        return None
    w = own / norm
    mean = _one(w, at)
    rest = at - mean.value
    direct = _SCORE + k - 1 + DIVISION
    parts = _SCORE + 2 * (_SCORE + k - 1 + DIVISION) + 1
    radius = direct * np.abs(at) + parts * mean.magnitude + (_SCORE + 1) * np.abs(rest)
    of_mean = UNIT * (direct + parts) * mean.magnitude
    return Points(
        w * rest, UNIT * w * radius + own * of_mean, np.zeros_like(shares), shares * of_mean
    )


def _of_sigmoid(rule: Renormalize | None, s: Floats, at: Floats) -> Points | None:
    """Return ``g s (1 - s)``, g having gone through the norm."""
    radius = np.zeros_like(at)
    if rule is not None:
        norm = s.sum(axis=1, keepdims=True)
        if not (norm >= _LEAST).all():
            return None
        divisor, k = norm + rule.eps, s.shape[1]
        of_norm = (_SCORE + k - 1) * norm / divisor
        mean = _one(s / divisor, at)
        radius = (of_norm + DIVISION) * np.abs(at)
        radius = radius + (_SCORE + 2.0 * (of_norm + DIVISION) + 1.0) * mean.magnitude
        at, radius = (at - mean.value) / divisor, UNIT * radius / divisor
    slope = s * (1.0 - s)
    own = UNIT * np.abs(at) * (_SCORE * s + 3.0 * slope)
    return Points(at * slope, radius * slope + own)


def kept(point: Floats, radius: Floats, form: FloatFormat) -> Floats:
    """Return what of a radius is used, the last rounding and the store of the point among it."""
    most: Floats = _KEPT * (radius + UNIT * np.abs(point))
    return most + _STORED * store_unit(form) * np.abs(point) if store_unit(form) else most

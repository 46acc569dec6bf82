"""Gradients from the weights back to the logits, at given ids (docs/spec/gradients.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.reference.config import Renormalize, RouterConfig
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.inputs import RouterInputs
from moe_routing.reference.routing import Stages
from moe_routing.reference.scores import sigmoid, softmax


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """The slots of a call, ``[T, K]``: their experts, cotangents, and weights on the way.

    ``ids`` are 0 where a route is not ``present``; everything else is 0 there. ``cotangent`` is
    that of the weights, ``before`` that of the weights before they are scaled; ``gathered`` and
    ``renormalized`` as in ``Stages``.
    """

    ids: Ids
    present: Bools
    experts: int
    cotangent: Floats
    before: Floats
    gathered: Floats
    renormalized: Floats

    @classmethod
    def of(
        cls, config: RouterConfig, inputs: RouterInputs, done: Stages, ids: Ids, cotangent: Floats
    ) -> Slots:
        """Gather what the slots hold, from the stages of the call."""
        present = ids >= 0
        safe = np.where(present, ids, 0)
        at_weights = np.where(present, np.take_along_axis(cotangent, safe, axis=1), 0.0)
        before = at_weights * config.scale
        if inputs.per_expert_scale is not None:
            before = before * inputs.per_expert_scale.astype(np.float64)[safe]
        gathered = _gathered(config, done, safe, present)
        return cls(
            ids=safe,
            present=present,
            experts=config.num_experts,
            cotangent=at_weights,
            before=np.where(present, before, 0.0),
            gathered=gathered,
            renormalized=_renormalized(config.renormalize, gathered),
        )

    def added(self, values: Floats) -> Floats:
        """Add the slots' values ``[T, K]`` to those of their experts, ``[T, E]``."""
        total = np.zeros((len(values), self.experts))
        rows = np.broadcast_to(np.arange(len(values))[:, None], values.shape)
        np.add.at(total, (rows, self.ids), np.where(self.present, values, 0.0))
        return total


def _gathered(config: RouterConfig, done: Stages, ids: Ids, present: Bools) -> Floats:
    operated = np.take_along_axis(done.operated, ids, axis=1)
    match config.weights_from:
        case "softmax_of_selected":
            some = np.where(present, operated, -np.inf)
            found = softmax(np.where(present.any(axis=1, keepdims=True), some, 0.0))
        case "sigmoid_of_selected":
            found = sigmoid(operated)
        case "masked_scores":
            found = np.take_along_axis(np.where(done.kept, done.scores, 0.0), ids, axis=1)
        case _:
            found = np.take_along_axis(done.scores, ids, axis=1)
    return np.where(present, found, 0.0)


def norm_of(rule: Renormalize, weights: Floats) -> Floats:
    """Return the norm of each row, ``[T, 1]``, before eps and floor."""
    powers = np.abs(weights) ** rule.order
    norm: Floats = powers.sum(axis=1, keepdims=True) ** (1.0 / rule.order)
    return norm


def _renormalized(rule: Renormalize | None, gathered: Floats) -> Floats:
    if rule is None:
        return gathered
    quotients: Floats = gathered / np.maximum(norm_of(rule, gathered) + rule.eps, rule.floor)
    return quotients


def expert_scale_gradient(config: RouterConfig, slots: Slots) -> Floats:
    """Return the gradient of each expert's own scale: what its weights were, times G."""
    each = slots.added(slots.cotangent * slots.renormalized * config.scale)
    return np.asarray(each.sum(axis=0))


def renormalized_gradient(rule: Renormalize | None, slots: Slots) -> Floats:
    """Return the gradient of the gathered weights, ``[T, K]``: every weight is in the norm.

    At the floor the divisor is a constant.
    """
    at, weights = slots.before, slots.gathered
    if rule is None:
        return at
    norm = norm_of(rule, weights)
    divisor = np.maximum(norm + rule.eps, rule.floor)
    shared = (at * weights).sum(axis=1, keepdims=True) / divisor**2
    slope = np.ones_like(weights) if rule.order == 1 else (weights / norm) ** (rule.order - 1.0)
    through = np.where(norm + rule.eps < rule.floor, 0.0, shared * slope)
    return np.asarray(at / divisor - through)


def operated_gradient(config: RouterConfig, done: Stages, slots: Slots) -> Floats:
    """Return the gradient of the logits after the logit op, ``[T, E]``."""
    at = renormalized_gradient(config.renormalize, slots)
    gathered = slots.gathered
    match config.weights_from:
        case "softmax_of_selected":
            mean = (at * gathered).sum(axis=1, keepdims=True)
            return slots.added(gathered * (at - mean))
        case "sigmoid_of_selected":
            logits = np.take_along_axis(done.operated, slots.ids, axis=1)
            return slots.added(at * gathered * sigmoid(-logits))
        case "masked_scores":
            kept = np.take_along_axis(done.kept, slots.ids, axis=1)
            at = np.where(kept, at, 0.0)
    return score_gradient(config, done, slots.added(at))


def score_gradient(config: RouterConfig, done: Stages, at: Floats) -> Floats:
    """Return the gradient of the operated logits, from that of the scores, both ``[T, E]``."""
    scores, logits = done.scores, done.operated
    match config.score:
        case "softmax":
            mean = (at * scores).sum(axis=1, keepdims=True)
            return np.asarray(scores * (at - mean))
        case "sigmoid":
            return np.asarray(at * scores * sigmoid(-logits))
        case "sqrtsoftplus":
            return np.asarray(at * sigmoid(logits) / (2.0 * scores))
        case _:
            return at


def logit_gradient(config: RouterConfig, logits: Floats, at: Floats) -> Floats:
    """Return the gradient of the logits, from that of the operated logits, both ``[T, E]``."""
    if config.logit_softcap is not None:
        multiplied = logits * config.logit_multiplier
        at = at / np.cosh(multiplied / config.logit_softcap) ** 2
    return at * config.logit_multiplier

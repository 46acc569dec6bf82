"""The zoo's differentiator: a router and its gradients in NumPy, made of stages to be replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.conformance.zoo.router.staged import StagedAdapter, StagedWork
from moe_routing.conformance.zoo.router.stages import RIGHT, product
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import RouterGradients
from moe_routing.reference import RouterConfig, RouterInputs


class GradientWork(StagedWork):
    """One call of gradients in progress.

    ``forward`` is the right router's work on the call, ``own`` the stages of the way back that the
    differentiator has in place of the right ones, ``memory`` what it stores between calls. On
    the way back: ``saved_ids``, ``saved_weights [T, K]`` (as gathered), ``saved_scores [T, E]`` and
    ``saved_input [T, H]`` are what was saved for it; ``at_weights``, ``at_renormalized`` and
    ``at_gathered [T, K]``, ``at_operated`` and ``at_logits [T, E]``, ``at_seen [T, H]`` the
    gradients of the stages; ``of_*`` those of the inputs.
    """

    saved_ids: Array
    saved_weights: Array
    saved_scores: Array
    saved_input: Array
    at_weights: Array
    at_renormalized: Array
    at_gathered: Array
    at_operated: Array
    at_logits: Array
    at_seen: Array
    of_logits: Array | None
    of_hidden: Array | None
    of_gate_weight: Array | None
    of_gate_bias: Array | None
    of_gate_delta: Array | None
    of_selection_bias: Array | None
    of_per_expert_scale: Array | None
    of_hidden_scale: Array | None
    answer: Any

    def __init__(
        self,
        own: Mapping[str, GradientStage],
        forward: Work,
        cotangent: Array,
        memory: dict[Any, Any],
    ) -> None:
        super().__init__("a differentiator", DIFFERENTIATING, own, memory)
        self.forward, self.cotangent = forward, cotangent

    @property
    def config(self) -> RouterConfig:
        """The configuration, checked and claimed."""
        return self.forward.config

    @property
    def inputs(self) -> RouterInputs:
        """The inputs."""
        inputs: RouterInputs = self.forward.inputs
        return inputs

    @property
    def has_softmax(self) -> bool:
        """Whether weights come from a softmax over all experts."""
        return self.config.score == "softmax" and "selected" not in self.config.weights_from

    @property
    def has_norm(self) -> bool:
        """Whether weights are divided by their norm."""
        return self.config.renormalize is not None


GradientStage = Callable[[GradientWork], Any]


class StagedDifferentiator(StagedAdapter):
    """An adapter that routes and differentiates; its answer is the last of its stages."""

    methods = ("gradients",)

    def gradients(self, config: RouterConfig, inputs: RouterInputs, cotangent: Array) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``, ``ValueError``."""
        forward = Work({}, RIGHT, config, inputs, self._capabilities, {})
        with np.errstate(all="ignore"):
            return GradientWork(self._stages, forward, cotangent, self.memory).answer


def at_renormalized(w: GradientWork) -> Array:
    """Multiply by each expert's own scale, then by the routed scaling factor."""
    at, scales = w.at_weights, w.inputs.per_expert_scale
    if scales is not None:
        at = at * scales[w.saved_ids]
    return np.asarray(at * np.float32(w.config.scale))


def at_gathered(w: GradientWork) -> Array:
    """Go back through the norm: every weight is in it."""
    if not w.has_norm:
        return w.at_renormalized
    return np.asarray(w.at_renormalized / w.forward.norm - through_norm(w))


def through_norm(w: GradientWork) -> Array:
    """Return what of the gradient comes through the norm itself: nothing at the floor."""
    rule, weights, norm = w.forward.rule, w.saved_weights, w.forward.norm
    shared = (w.at_renormalized * (weights / norm / norm)).sum(axis=1, keepdims=True)
    plain = powers_of_norm(w)
    order = np.float32(rule.order)
    slope = np.ones_like(weights) if order == 1 else (weights / plain) ** (order - 1)
    floored = plain + np.float32(rule.eps) < np.float32(rule.floor)
    return np.where(floored, np.float32(0), shared * slope)


def powers_of_norm(w: GradientWork) -> Array:
    """Return the norm before eps and floor."""
    order = np.float32(w.forward.rule.order)
    powers: Array = np.abs(w.saved_weights) ** order
    total: Array = powers.sum(axis=1, keepdims=True)
    return np.asarray(total ** (1 / order))


def scattered(w: GradientWork, values: Array) -> Array:
    """Add the slots' values to those of their experts, ``[T, E]``."""
    total = np.zeros((len(values), w.config.num_experts), np.float32)
    rows = np.broadcast_to(np.arange(len(values))[:, None], values.shape)
    np.add.at(total, (rows, w.saved_ids), values)
    return total


def at_operated(w: GradientWork) -> Array:
    """Go back through what made the weights of the logits."""
    at, weights = w.at_gathered, w.saved_weights
    match w.config.weights_from:
        case "softmax_of_selected":
            return scattered(w, through_softmax(weights, at))
        case "sigmoid_of_selected":
            return scattered(w, at * weights * (1 - weights))
        case "masked_scores":
            kept = np.take_along_axis(w.forward.kept, w.saved_ids, axis=1)
            at = np.where(kept, at, np.float32(0))
    return through_score(w, scattered(w, at))


def through_softmax(shares: Array, at: Array) -> Array:
    """Go back through a softmax over the last axis."""
    mean: Array = (at * shares).sum(axis=1, keepdims=True)
    return np.asarray(shares * (at - mean))


def through_score(w: GradientWork, at: Array) -> Array:
    """Go back through the score function, ``[T, E]``."""
    scores = w.saved_scores
    if w.config.score == "softmax":
        return through_softmax(scores, at)
    if w.config.score == "sigmoid":
        return np.asarray(at * scores * (1 - scores))
    return np.asarray(at / (2 * scores) * sigmoid(w.forward.operated))


def at_logits(w: GradientWork) -> Array:
    """Go back through the softcap, then the multiplier."""
    at, cap = w.at_operated, w.config.logit_softcap
    if cap is not None:
        tanh = w.forward.operated / np.float32(cap)
        at = at * (1 - tanh * tanh)
    return np.asarray(at * np.float32(w.config.logit_multiplier))


def at_seen(w: GradientWork) -> Array:
    """Multiply by the gate, and by the delta."""
    at: Array = w.at_logits @ w.inputs.gate_weight
    return at if w.inputs.gate_delta is None else at + np.asarray(w.at_logits @ w.inputs.gate_delta)


def root_of(w: GradientWork) -> Array:
    """Return the root of the mean square of each hidden state, ``[T, 1]``."""
    assert w.config.input_norm is not None
    hidden = w.inputs.hidden
    mean_square = np.mean(hidden * hidden, axis=1, keepdims=True)
    return np.asarray(np.sqrt(mean_square + np.float32(w.config.input_norm.eps)))


def of_hidden(w: GradientWork) -> Array:
    """Go back through the input norm."""
    if w.config.input_norm is None:
        return w.at_seen
    root, constant = root_of(w), np.float32(w.inputs.hidden_size**-0.5)
    unit = w.inputs.hidden / root
    scale = np.float32(1) if w.inputs.hidden_scale is None else w.inputs.hidden_scale
    at = w.at_seen * scale * constant
    mean = np.mean(at * unit, axis=1, keepdims=True)
    return np.asarray((at - unit * mean) / root)


def of_hidden_scale(w: GradientWork) -> Array | None:
    """Sum the products with the hidden states before their scale."""
    if w.inputs.hidden_scale is None:
        return None
    unit = w.inputs.hidden / root_of(w) * np.float32(w.inputs.hidden_size**-0.5)
    return np.asarray((w.at_seen * unit).sum(axis=0))


def of_gate_weight(w: GradientWork) -> Array:
    """Sum the products with what the gate multiplies, over all tokens."""
    return product(w.at_logits.T, w.saved_input.T)


def of_per_expert_scale(w: GradientWork) -> Array | None:
    """Sum the cotangents times the weights before that scale."""
    if w.inputs.per_expert_scale is None:
        return None
    return np.asarray(scattered(w, w.at_weights * w.forward.scaled).sum(axis=0))


def answer(w: GradientWork) -> RouterGradients:
    """Answer with the routing."""
    found = {name: getattr(w, f"of_{name}") for name in OF}
    return RouterGradients(routing=w.forward.answer, **found)


OF = (
    *("logits", "hidden", "gate_weight", "gate_bias", "gate_delta", "selection_bias"),
    *("per_expert_scale", "hidden_scale"),
)

DIFFERENTIATING: dict[str, GradientStage] = {
    "saved_ids": lambda w: w.forward.expert_ids,
    "saved_weights": lambda w: w.forward.gathered,
    "saved_scores": lambda w: w.forward.scores,
    "saved_input": lambda w: w.forward.gate_input,
    "at_weights": lambda w: np.take_along_axis(w.cotangent, w.saved_ids, axis=1),
    "at_renormalized": at_renormalized,
    "at_gathered": at_gathered,
    "at_operated": at_operated,
    "at_logits": at_logits,
    "at_seen": at_seen,
    "of_logits": lambda w: w.at_logits,
    "of_hidden": of_hidden,
    "of_gate_weight": of_gate_weight,
    "of_gate_bias": lambda w: (
        None if w.inputs.gate_bias is None else w.at_logits.sum(axis=0, dtype=np.float32)
    ),
    "of_gate_delta": lambda w: None if w.inputs.gate_delta is None else w.of_gate_weight,
    "of_selection_bias": lambda w: None,
    "of_per_expert_scale": of_per_expert_scale,
    "of_hidden_scale": of_hidden_scale,
    "answer": answer,
}
"""Every stage of a right differentiator, by name."""

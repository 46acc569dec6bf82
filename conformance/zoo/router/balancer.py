"""The zoo's balancer: right counts, losses and updates in NumPy, of stages that can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.staged import StagedAdapter
from moe_routing.implementations.balances import Balance
from moe_routing.reference.balance import SIGMOID_EPS, BalanceConfig, BalanceInputs


class BalancerWork:
    """One step in progress: a stage's value is computed when it is first read.

    ``ids [L, T, K]``, ``mask [T]`` (1 where a token is counted), ``counted [L, E]`` (all slots),
    ``reported_counts [L, E]``, ``loss_counts [L, E]``, ``scores [L, T, E]``, ``rows`` and
    ``slots`` (what the loss is divided by), ``factors [L, E]``, ``aux_loss``, ``aux_gradient``,
    ``z_values [L, T]``, ``z_loss``, ``step [L, E]``, ``bias [L, E]``, ``answer``.
    """

    ids: Array
    mask: Array
    counted: Array
    reported_counts: Array
    loss_counts: Array
    scores: Array
    rows: float
    slots: int
    factors: Array
    aux_loss: Any
    aux_gradient: Array
    z_values: Array
    z_loss: Any
    step: Array
    bias: Array
    answer: Any

    def __init__(
        self,
        own: Mapping[str, BalancerStage],
        config: BalanceConfig,
        inputs: BalanceInputs,
        memory: dict[Any, Any],
    ) -> None:
        self._own, self.config, self.inputs, self.memory = own, config, inputs, memory

    def __getattr__(self, stage: str) -> Any:
        if stage not in BALANCING:
            raise AttributeError(f"a balancer has no stage {stage!r}")
        value = (self._own.get(stage) or BALANCING[stage])(self)
        vars(self)[stage] = value
        return value

    @property
    def experts(self) -> int:
        """E."""
        return self.config.num_experts

    @property
    def layers(self) -> int:
        """L."""
        return self.inputs.num_layers


BalancerStage = Callable[[BalancerWork], Any]


class StagedBalancer(StagedAdapter):
    """An adapter that only balances; its answer is the last of its stages."""

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``."""
        self._capabilities.balances.require(config, inputs)
        return BalancerWork(self._stages, config, inputs, self.memory).answer


def histogram(w: BalancerWork, ids: Array) -> Array:
    """Return the routes of each expert by layer, of tokens in the mask."""
    hot = (ids[..., None] == np.arange(w.experts)) & (w.mask == 1)[None, :, None, None]
    return np.asarray(hot.sum(axis=(1, 2)))


def softmax(z: Array) -> Array:
    """Return the softmax over experts, in float32."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def sigmoid(z: Array) -> Array:
    """Return sigmoids, in float32."""
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1 / (1 + e), e / (1 + e)).astype(np.float32))


def scored(w: BalancerWork) -> Array:
    """Return the shares."""
    z = w.inputs.logits
    if w.config.score == "softmax":
        return softmax(z)
    each = sigmoid(z)
    return np.asarray(each / (each.sum(axis=-1, keepdims=True) + np.float32(SIGMOID_EPS)))


def divided(w: BalancerWork) -> Array:
    """Return what sums of shares are multiplied by."""
    counts, rows = w.loss_counts.astype(np.float32), np.float32(w.rows)
    if w.config.over_layers == "pooled":
        counts, rows = np.broadcast_to(counts.sum(axis=0), counts.shape), rows * w.layers
    mean = w.layers if w.config.over_layers == "mean" else 1
    scale = np.float32(w.experts) / np.float32(w.slots * mean)
    return np.asarray(counts / rows * scale / rows)


def lost(w: BalancerWork) -> Any:
    """Return the loss."""
    summed = (w.scores * w.mask[None, :, None].astype(np.float32)).sum(axis=1)
    return np.float32((summed * w.factors).sum())


def differentiated(w: BalancerWork) -> Array:
    """Return the gradient of the loss by the logits."""
    g = w.factors[:, None, :] * w.mask[None, :, None].astype(np.float32)
    p = w.scores
    centred = g - (p * g).sum(axis=-1, keepdims=True)
    if w.config.score == "softmax":
        return np.asarray(p * centred)
    each = sigmoid(w.inputs.logits)
    whole = each.sum(axis=-1, keepdims=True) + np.float32(SIGMOID_EPS)
    return np.asarray(each * (1 - each) * centred / whole)


def squared(w: BalancerWork) -> Array:
    """Return the square of each token's log of summed exponentials, ``[L, T]``."""
    z = w.inputs.logits
    m = z.max(axis=-1)
    return np.asarray((m + np.log(np.exp(z - m[..., None]).sum(axis=-1))) ** 2)


def z_lost(w: BalancerWork) -> Any:
    """Return the z-loss."""
    whole = (w.z_values * w.mask[None]).sum() / np.float32(w.rows)
    return np.float32(whole if w.config.over_layers == "sum" else whole / w.layers)


def stepped(w: BalancerWork) -> Array:
    """Return what is added to the bias."""
    counts = w.counted
    below = np.sign(counts.sum(axis=1, keepdims=True) / np.float32(w.experts) - counts)
    step = np.float32(w.config.rate) * below.astype(np.float32)
    if w.config.update == "centred":
        step = step - step.mean(axis=1, keepdims=True)
    return np.asarray(step)


BALANCING: dict[str, BalancerStage] = {
    "ids": lambda w: w.inputs.expert_ids,
    "mask": lambda w: w.inputs.valid,
    "counted": lambda w: histogram(w, w.ids),
    "reported_counts": lambda w: w.counted * (w.config.mode != "eval"),
    "loss_counts": lambda w: histogram(
        w, w.ids[:, :, :1] if w.config.counted == "first" else w.ids
    ),
    "scores": scored,
    "rows": lambda w: float(w.mask.sum()),
    "slots": lambda w: (
        w.inputs.top_k if w.config.at_balance == "one" and w.config.counted == "all" else 1
    ),
    "factors": divided,
    "aux_loss": lost,
    "aux_gradient": differentiated,
    "z_values": squared,
    "z_loss": z_lost,
    "step": stepped,
    "bias": lambda w: w.inputs.bias + w.step * np.float32(w.config.mode != "eval"),
    "answer": lambda w: Balance(
        counts=w.reported_counts,
        aux_loss=w.aux_loss,
        aux_gradient=w.aux_gradient,
        z_loss=w.z_loss,
        bias=w.bias,
    ),
}
"""The right stages of a step, by name."""

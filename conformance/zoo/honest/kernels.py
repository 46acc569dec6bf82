"""Honest variants that do as kernels do: tensor cores, late rescaling, folded norms, rings."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.honest.scores import LOG2E
from moe_routing.conformance.zoo.residents import ROUTED, honest
from moe_routing.conformance.zoo.router.differentiator import (
    GradientWork,
    StagedDifferentiator,
    at_operated,
    scattered,
)
from moe_routing.conformance.zoo.router.functions import SCORE_FUNCTIONS, Array, shares
from moe_routing.conformance.zoo.router.ranks import RanksWork, StagedRanks
from moe_routing.conformance.zoo.router.runner import ACTIVATE, RunnerWork, StagedRunner, product
from moe_routing.conformance.zoo.router.stages import gate_logits, logits
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference.activations import CLAMPED

_TILE = 16
"""The products that a tensor core adds up at once, and the experts of a block."""

_LATE = np.float32(5.5)
"""How far the maximum may grow before a total is rescaled: by less than 2 to the eighth."""


def _towards_0(values: Array) -> Array:
    """Cut float64 to float32."""
    near = values.astype(np.float32)
    return np.where(np.abs(near) > np.abs(values), np.nextafter(near, np.float32(0)), near)


def _on_tensor_cores(x: Array, a: Array) -> Array:
    total = np.zeros((len(x), len(a)), np.float32)
    for h in range(0, x.shape[1], _TILE):
        part = x[:, h : h + _TILE].astype(np.float64) @ a[:, h : h + _TILE].astype(np.float64).T
        total = _towards_0(total + part)
    return total


@honest("sums-on-tensor-cores", "logits", "reported_logits", claims=ROUTED)
def _(w: Work, stage: str) -> Array:
    """Of 16 bits sixteen products are added up exactly, and each such sum cut to float32."""
    if stage != "logits":
        return w.logits
    wide = w.config.input_norm is not None or w.inputs.dtype_of("gate_weight") == "float32"
    return logits(w) if wide else gate_logits(w, _on_tensor_cores)


@honest("norm-after-the-product", "logits")
def _(w: Work) -> Array:
    """The scale of an input norm may be folded into the gate, and its root come last."""
    if w.config.input_norm is None:
        return logits(w)
    scale = np.float32(1) if w.inputs.hidden_scale is None else w.inputs.hidden_scale
    scale = scale * np.float32(w.inputs.hidden_size**-0.5)
    mean_square = np.mean(w.hidden * w.hidden, axis=1, keepdims=True)
    root = np.sqrt(mean_square + np.float32(w.config.input_norm.eps))
    z: Array = (w.hidden @ (w.gate_weight * scale).T) / root
    if w.gate_delta is not None:
        z = z + (w.hidden @ (w.gate_delta * scale).T) / root
    return z if w.gate_bias is None else z + w.gate_bias


def _softmax_else(w: Work) -> Array | None:
    """Return the scores of another function, or None for a softmax of some experts."""
    others = w.config.score != "softmax" or not w.operated.size
    return SCORE_FUNCTIONS[w.config.score](w.operated) if others else None


@honest("softmax-rescaled-late", "scores")
def _(w: Work) -> Array:
    """One pass whose shift may lag behind the maximum, while no exponential can overflow."""
    if (other := _softmax_else(w)) is not None:
        return other
    shift = np.full((len(w.operated), 1), -np.inf, np.float32)
    total = np.zeros_like(shift)
    for e in range(0, w.config.num_experts, _TILE):
        block = w.operated[:, e : e + _TILE]
        most = block.max(axis=1, keepdims=True)
        moved = np.where((most - shift > _LATE) | np.isneginf(shift), most, shift)
        base = np.where(np.isneginf(moved), 0, moved)
        total = total * np.where(np.isneginf(shift), 0, np.exp(shift - base))
        total = total + np.exp(block - base).sum(axis=1, keepdims=True)
        shift = moved
    return np.exp(w.operated - shift) / total


@honest("exponentials-of-a-gpu", "scores")
def _(w: Work) -> Array:
    """CUDA documents two ulp for powers of two: here by turns too high and too low."""
    if (other := _softmax_else(w)) is not None:
        return other
    exponents = (w.operated - w.operated.max(axis=1, keepdims=True)) * LOG2E
    sides = np.where(np.arange(w.config.num_experts) % 2, 1.0, -1.0)
    return shares((np.exp2(exponents) * (1.0 + sides * 2.0**-22)).astype(np.float32))


@honest("gradients-of-a-merged-gate", "at_seen", makes=StagedDifferentiator)
def _(w: GradientWork) -> Array:
    """A delta may be added to the gate, in float32, on the way back as on the way there."""
    gate, delta = w.inputs.gate_weight, w.inputs.gate_delta
    return np.asarray(w.at_logits @ (gate if delta is None else gate + delta))


@honest("gradients-of-a-root-from-itself", "at_operated", makes=StagedDifferentiator)
def _(w: GradientWork) -> Array:
    """The slope of a softplus is ``1 - exp(-softplus)``: its root alone is saved."""
    if w.config.score != "sqrtsoftplus" or w.config.weights_from != "scores":
        return at_operated(w)
    root = w.saved_scores
    return np.asarray(scattered(w, w.at_gathered) * (-np.expm1(-root * root) / (2 * root)))


@honest("run-with-the-weight-in-up", "inner", "answers", "weighted", makes=StagedRunner)
def _(w: RunnerWork, stage: str) -> Array:
    """Before the last product a weight may be applied to either factor of its input."""
    plain = w.config.weight_on == "input" or not w.config.gated
    if plain or w.config.activation == CLAMPED:
        return w.right(stage)  # type: ignore[no-any-return]
    if stage == "inner":
        return w.stored(w.stored(ACTIVATE[w.config.activation](w.gate)) * w.stored(w.up * w.scale))
    if stage == "weighted":
        return w.answers
    out, bias = w.stored(product(w, w.inner, "down")), w.matrices.get("down_bias")
    return out if bias is None else w.stored(out + w.stored(bias[w.owners] * w.scale))


@honest("ranks-in-a-ring", "summed", makes=StagedRanks)
def _(w: RanksWork) -> Array:
    """A ring adds each part of the columns from another rank on."""
    columns = np.arange(w.hidden.shape[1]) * len(w.parts) // w.hidden.shape[1]
    out = np.zeros(w.hidden.shape, np.float32)
    for turn in range(len(w.parts)):
        for first, part in enumerate(w.parts):
            mine = columns == (first + turn) % len(w.parts)
            out[:, mine] += np.asarray(part, np.float32)[:, mine]
    return RunnerWork({}, w.call.config, w.call.batches[0], {}).stored(out)

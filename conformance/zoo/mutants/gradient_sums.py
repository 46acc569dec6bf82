"""Mutants of gradients: sums over tokens."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.differentiator import (
    GradientWork,
    StagedDifferentiator,
    of_gate_weight,
    root_of,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.reference.formats import BFLOAT16

differentiator = partial(mutant, makes=StagedDifferentiator)


# Sums over tokens.


@differentiator(
    "gate-never-learns", "M64", "of_gate_weight", real="TIML-Group/Robust-MoE-Dual-Model#2"
)
def _(w: GradientWork) -> Array | None:
    """The gate's gradient was None after the backward pass."""
    return None


@differentiator(
    "gate-gradient-summed-in-bfloat16", "M64", "of_gate_weight", real="NVIDIA/Megatron-LM#6943"
)
def _(w: GradientWork) -> Array:
    """The sum over tokens was held in bfloat16: past 256 tokens small ones were lost."""
    total = np.zeros(w.inputs.gate_weight.shape, np.float32)
    for at, seen in zip(w.at_logits, w.saved_input, strict=True):
        total = BFLOAT16.round(total + np.outer(at, seen)).astype(np.float32)
    return total


@differentiator(
    "gate-gradient-of-rounded-operands", "M64", "of_gate_weight", real="pytorch/torchtitan#4273"
)
def _(w: GradientWork) -> Array:
    """The gradient of the logits was cast to bfloat16 before the product, always."""
    rounded = BFLOAT16.round(w.at_logits).astype(np.float32)
    return np.asarray(rounded.T @ w.saved_input)


@differentiator(
    "gate-gradient-of-256-tokens",
    "M64",
    "of_gate_weight",
    real="open-lm-engine/lm-engine#4",
    needs="257 tokens",
)
def _(w: GradientWork) -> Array:
    """The kernel summed over one block of 256 tokens."""
    return np.asarray(w.at_logits[:256].T @ w.saved_input[:256])


@differentiator(
    "bias-gradient-of-256-tokens",
    "M64",
    "of_gate_bias",
    real="open-lm-engine/lm-engine#4",
    needs="257 tokens",
)
def _(w: GradientWork) -> Array | None:
    """The sum for the linear bias ended with the first block of 256 tokens."""
    return None if w.inputs.gate_bias is None else w.at_logits[:256].sum(axis=0, dtype=np.float32)


def _first_256(w: GradientWork) -> Array:
    return np.asarray(w.at_logits[:256].T @ w.saved_input[:256])


@differentiator(
    "delta-gradient-of-256-tokens",
    "M64",
    "of_gate_delta",
    real="open-lm-engine/lm-engine#4",
    needs="257 tokens",
)
def _(w: GradientWork) -> Array | None:
    """The sum for the delta ended with the first block of 256 tokens."""
    return None if w.inputs.gate_delta is None else _first_256(w)


@differentiator(
    "expert-scale-gradient-of-256-tokens",
    "M64",
    "of_per_expert_scale",
    real="open-lm-engine/lm-engine#4",
    needs="257 tokens",
)
def _(w: GradientWork) -> Array | None:
    """The sum for the experts' scales ended with the first block of 256 tokens."""
    if w.inputs.per_expert_scale is None:
        return None
    total = np.zeros(w.config.num_experts, np.float32)
    np.add.at(total, w.saved_ids[:256], (w.at_weights * w.forward.scaled)[:256])
    return total


@differentiator(
    "hidden-scale-gradient-of-256-tokens",
    "M64",
    "of_hidden_scale",
    real="open-lm-engine/lm-engine#4",
    needs="257 tokens",
)
def _(w: GradientWork) -> Array | None:
    """The sum for the scale of hidden states ended with the first block of 256 tokens."""
    if w.inputs.hidden_scale is None:
        return None
    unit = w.inputs.hidden / root_of(w) * np.float32(w.inputs.hidden_size**-0.5)
    return np.asarray((w.at_seen * unit)[:256].sum(axis=0))


@differentiator("last-token-lost", "M64", "of_gate_weight", real="open-lm-engine/lm-engine#4")
def _(w: GradientWork) -> Array:
    """A loop one short left the last token out of the gate's gradient."""
    return np.asarray(w.at_logits[:-1].T @ w.saved_input[:-1])


@differentiator("gate-gradient-is-a-mean", "M64", "of_gate_weight", real="NVIDIA/Megatron-LM#3672")
def _(w: GradientWork) -> Array:
    """The sum over tokens was divided by their number: the more tokens, the less they taught."""
    return np.asarray(of_gate_weight(w) / np.float32(max(1, w.inputs.num_tokens)))


@differentiator("gate-gradient-of-raw-input", "M64", "of_gate_weight", real="allenai/OLMo-core#799")
def _(w: GradientWork) -> Array:
    """The product was made with the hidden states before their norm."""
    return np.asarray(w.at_logits.T @ w.inputs.hidden)


@differentiator(
    "gate-gradient-accumulates", "M64", "of_gate_weight", real="NVIDIA/Megatron-LM@e6d56d6828"
)
def _(w: GradientWork) -> Array:
    """A buffer that was not cleared added each call's gradient to the one before."""
    right = of_gate_weight(w)
    key = right.shape
    before = w.memory.get(key, np.zeros_like(right))
    w.memory[key] = right
    return np.asarray(right + np.where(np.isfinite(before), before, np.float32(0)))


@differentiator(
    "gate-bias-gradient-of-one-token", "M64", "of_gate_bias", real="pytorch/torchtitan#2416"
)
def _(w: GradientWork) -> Array | None:
    """The linear bias got the gradient of the first token alone."""
    if w.inputs.gate_bias is None:
        return None
    return np.asarray(w.at_logits[:1].sum(axis=0))


@differentiator("gate-bias-never-learns", "M64", "of_gate_bias", real="pytorch/torchtitan#2416")
def _(w: GradientWork) -> Array | None:
    """The linear bias was added to a detached copy."""
    return None


@differentiator(
    "expert-scale-of-its-neighbour", "M64", "of_per_expert_scale", real="open-lm-engine/lm-engine#4"
)
def _(w: GradientWork) -> Array | None:
    """Sorted by expert, the sums were written one expert too far."""
    if w.inputs.per_expert_scale is None:
        return None
    total = np.zeros(w.config.num_experts, np.float32)
    ids = (w.saved_ids + 1) % w.config.num_experts
    np.add.at(total, ids, w.at_weights * w.forward.scaled)
    return total


@differentiator(
    "expert-scale-of-scaled-weights", "M64", "of_per_expert_scale", real="sgl-project/sglang#8511"
)
def _(w: GradientWork) -> Array | None:
    """The gradient was taken with the weights after the scale."""
    if w.inputs.per_expert_scale is None:
        return None
    total = np.zeros(w.config.num_experts, np.float32)
    np.add.at(total, w.saved_ids, w.at_weights * w.forward.weights)
    return total

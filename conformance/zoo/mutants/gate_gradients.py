"""Mutants of gradients: the gate's side, and the call as a whole."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.differentiator import (
    GradientWork,
    StagedDifferentiator,
    answer,
    at_seen,
    of_gate_weight,
    of_hidden_scale,
    root_of,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import overwrite
from moe_routing.implementations import RouterGradients
from moe_routing.reference.formats import BFLOAT16

differentiator = partial(mutant, makes=StagedDifferentiator)


# Hidden states.


@differentiator("hidden-gets-nothing", "M64", "of_hidden", real="pytorch/torchtitan@3ff755178")
def _(w: GradientWork) -> Array | None:
    """The router read a detached copy of the hidden states: the layers below never heard of it."""
    return None


@differentiator(
    "gate-transposed-in-backward", "M64", "at_seen", real="axolotl-ai-cloud/axolotl@6401a353c"
)
def _(w: GradientWork) -> Array:
    """Where the gate is square it was multiplied the wrong way round."""
    gate = w.inputs.gate_weight
    if gate.shape[0] != gate.shape[1]:
        return at_seen(w)
    at: Array = w.at_logits @ gate.T
    return at if w.inputs.gate_delta is None else at + w.at_logits @ w.inputs.gate_delta


@differentiator("delta-counted-twice", "M64", "at_seen", real="unslothai/unsloth-zoo#606")
def _(w: GradientWork) -> Array:
    """The delta was merged into the gate, and added again."""
    at, delta = at_seen(w), w.inputs.gate_delta
    return at if delta is None else at + w.at_logits @ delta


@differentiator("delta-left-out-of-backward", "M64", "at_seen", real="unslothai/unsloth-zoo#607")
def _(w: GradientWork) -> Array:
    """The hidden states got the gradient through the gate alone."""
    return np.asarray(w.at_logits @ w.inputs.gate_weight)


@differentiator("delta-never-learns", "M64", "of_gate_delta", real="unslothai/unsloth-zoo#606")
def _(w: GradientWork) -> Array | None:
    """The delta was merged without a graph: in fine-tuning nothing of the router moved."""
    return None


@differentiator("input-norm-detached", "M64", "of_hidden", real="google-research/vmoe#218")
def _(w: GradientWork) -> Array:
    """The root mean square was a constant to the backward pass."""
    if w.config.input_norm is None:
        return w.at_seen
    scale = np.float32(1) if w.inputs.hidden_scale is None else w.inputs.hidden_scale
    return np.asarray(w.at_seen * scale * np.float32(w.inputs.hidden_size**-0.5) / root_of(w))


@differentiator("hidden-scale-passes", "M64", "of_hidden", real="google-research/vmoe#218")
def _(w: GradientWork) -> Array:
    """The input norm passed its gradient on as if it were not there."""
    return w.at_seen


@differentiator(
    "hidden-scale-of-the-scaled-state", "M64", "of_hidden_scale", real="google-research/vmoe#218"
)
def _(w: GradientWork) -> Array | None:
    """The scale's gradient was taken with the states after it."""
    if w.inputs.hidden_scale is None:
        return of_hidden_scale(w)
    return np.asarray((w.at_seen * w.forward.gate_input).sum(axis=0))


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


# The call.


@differentiator("no-tokens-no-gradient", "M64", "of_gate_weight", real="NVIDIA/Megatron-LM#3626")
def _(w: GradientWork) -> Array:
    """Without tokens the parameters' gradients were what the buffer held."""
    right = of_gate_weight(w)
    return right if w.inputs.num_tokens else np.full_like(right, np.nan)


@differentiator("cotangent-scaled-in-place", "M64", "answer", real="databricks/megablocks@46567ec")
def _(w: GradientWork) -> RouterGradients:
    """The cotangent was multiplied in place; what else read it got the product."""
    right = answer(w)
    overwrite(w.cotangent, w.cotangent * np.float32(2))
    return right


@differentiator(
    "hidden-overwritten-by-its-gradient", "M61", "answer", real="databricks/megablocks@46567ec"
)
def _(w: GradientWork) -> RouterGradients:
    """The gradient of the hidden states was written over them, to save a buffer."""
    right = answer(w)
    overwrite(w.inputs.hidden, np.asarray(right.hidden))
    return right

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

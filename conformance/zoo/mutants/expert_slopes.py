"""Mutants of experts' gradients: activations, sides, routing weights and biases."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.conformance.zoo.router.learner import (
    SLOPES,
    LearnerWork,
    StagedLearner,
    at_gate,
    at_up,
    back,
    of_bias,
    of_matrix,
)
from moe_routing.conformance.zoo.router.runner import product
from moe_routing.reference.activations import CLAMPED

learner = partial(mutant, makes=StagedLearner)

_ACTIVATED = ("at_gate", "at_up")


def _by(w: LearnerWork, stage: str, **instead: str) -> Array:
    """Return the gradient of a product with one slope in the place of another."""
    swapped = {name.replace("_", "-"): SLOPES[other] for name, other in instead.items()}
    return (at_gate if stage == "at_gate" else at_up)(w, {**SLOPES, **swapped})


@learner("slope-of-gelu-for-its-tanh-form", "M86", *_ACTIVATED, real="vllm-project/vllm#41574")
def _(w: LearnerWork, stage: str) -> Array:
    """The forward pass had the tanh form of GELU, and the backward pass the exact one."""
    return _by(w, stage, gelu_tanh="gelu")


@learner("slope-of-the-tanh-form-for-gelu", "M86", *_ACTIVATED, real="m87-labs/kestrel#162")
def _(w: LearnerWork, stage: str) -> Array:
    """The forward pass had the exact GELU, and the backward pass its tanh form."""
    return _by(w, stage, gelu="gelu-tanh")


@learner("slope-of-silu-is-its-sigmoid", "M86", *_ACTIVATED, real="unslothai/unsloth#3314")
def _(w: LearnerWork, stage: str) -> Array:
    """The sigmoid was a constant to the backward pass."""
    slopes = {**SLOPES, "silu": sigmoid}
    return (at_gate if stage == "at_gate" else at_up)(w, slopes)


@learner("relu-passes-everything", "M86", *_ACTIVATED, real="NVIDIA/Megatron-LM#5999")
def _(w: LearnerWork, stage: str) -> Array:
    """The mask of ReLU was not applied on the way back."""
    slopes = {**SLOPES, "relu": lambda x: np.ones_like(x)}
    return (at_gate if stage == "at_gate" else at_up)(w, slopes)


@learner("clamp-passes-everything", "M86", *_ACTIVATED, real="mlc-ai/pith-train#23")
def _(w: LearnerWork, stage: str) -> Array:
    """A fused backward knew nothing of the clamp: values past the limit went on learning."""
    if w.config.activation != CLAMPED:
        return w.right(stage)  # type: ignore[no-any-return]
    limit, alpha = np.float32(w.config.limit), np.float32(w.config.alpha)
    held = np.minimum(w.forward.gate, limit)
    if stage == "at_up":
        return w.stored(w.at_inner * w.stored(held * sigmoid(alpha * held)))
    at = w.stored(w.at_inner * (np.clip(w.forward.up, -limit, limit) + 1))
    return w.stored(at * SLOPES["silu"](alpha * held))


@learner("alpha-missing-in-backward", "M86", "at_gate", real="sgl-project/sglang#28092")
def _(w: LearnerWork) -> Array:
    """The slope of a clamped SwiGLU was that of plain SiLU."""
    if w.config.activation != CLAMPED:
        return at_gate(w)
    limit = np.float32(w.config.limit)
    gate = np.minimum(w.forward.gate, limit)
    at = w.stored(w.at_inner * (np.clip(w.forward.up, -limit, limit) + 1))
    return w.stored(np.where(w.forward.gate <= limit, at * SLOPES["silu"](gate), np.float32(0)))


@learner(
    "gradients-of-gate-and-up-swapped",
    "M86",
    *("of_gate_weight", "of_up_weight"),
    real="unslothai/unsloth#3314",
)
def _(w: LearnerWork, stage: str) -> Array | None:
    """A fused kernel stored the gradient of up where that of the gate belongs."""
    if not w.config.gated:
        return w.right(stage)  # type: ignore[no-any-return]
    return of_matrix(w, w.at_up if stage == "of_gate_weight" else w.at_gate, w.forward.x)


@learner("up-gradient-without-the-activation", "M86", "at_up", real="unslothai/unsloth#3314")
def _(w: LearnerWork) -> Array:
    """The gradient of up was multiplied with the gate as it is, not with its activation."""
    if not w.config.gated or w.config.activation == CLAMPED:
        return at_up(w)
    return w.stored(w.at_inner * w.forward.gate)


@learner(
    "square-gradient-transposed",
    "M86",
    "of_down_weight",
    real="woct0rdho/transformers-qwen3-moe-fused#12",
)
def _(w: LearnerWork) -> Array:
    """A gradient of a square matrix came back transposed: its shape was right."""
    right: Array = w.right("of_down_weight")
    square = right.shape[1] == right.shape[2]
    return np.ascontiguousarray(right.swapaxes(1, 2)) if square else right


@learner("hidden-gets-no-part-from-the-gate", "M86", "at_x", real="open-lm-engine/lm-engine#4")
def _(w: LearnerWork) -> Array:
    """The gradient of the hidden states came through up alone."""
    return back(w, w.at_up, "up")


# Routing weights.


@learner("weight-missing-in-backward", "M86", "at_answers", real="vllm-project/vllm#43694")
def _(w: LearnerWork) -> Array:
    """Experts learned as if every route weighed 1."""
    return w.at_rows


@learner("weight-twice-in-backward", "M86", "at_inner", real="vllm-project/vllm#43694")
def _(w: LearnerWork) -> Array:
    """The weight was in the gradient of the answer, and multiplied in again."""
    right: Array = w.right("at_inner")
    return w.stored(right * w.forward.scale) if w.late else right


@learner("weight-not-on-the-input-in-backward", "M86", "of_hidden", real="sgl-project/sglang#7889")
def _(w: LearnerWork) -> Array:
    """The forward pass scaled the input, and the backward pass forgot to."""
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    np.add.at(total, w.forward.tokens, w.at_x)
    return w.stored(total)


@learner(
    "gradient-of-a-weight-misses-the-bias", "M86", "of_weights", real="NVIDIA-NeMo/Automodel#2591"
)
def _(w: LearnerWork) -> Array:
    """The gradient of a weight was taken with the expert's answer before its last bias."""
    if not w.late:
        return w.right("of_weights")  # type: ignore[no-any-return]
    bare = w.stored(product(w.forward, w.forward.inner, "down"))
    flat = np.zeros(w.inputs.weights.size, np.float32)
    flat[w.forward.routes] = (w.at_rows * bare).sum(axis=1, dtype=np.float32)
    return w.stored(flat.reshape(w.inputs.weights.shape))


@learner("gradient-of-a-weight-is-weighted", "M86", "of_weights", real="vllm-project/vllm#43694")
def _(w: LearnerWork) -> Array:
    """The gradient of a weight was taken with the weighted answer."""
    right: Array = w.right("of_weights")
    return w.stored(right * w.inputs.weights) if w.late else right


@learner(
    "gradients-of-weights-of-other-slots",
    "M86",
    "of_weights",
    real="vllm-project/vllm-xpu-kernels#66",
)
def _(w: LearnerWork) -> Array:
    """Gradients of weights came back in the order of experts, not of slots."""
    right: Array = w.right("of_weights")
    absent = w.inputs.expert_ids < 0
    order = np.argsort(w.inputs.expert_ids, axis=1, kind="stable")
    return np.where(absent, 0, np.take_along_axis(right, order, axis=1))


@learner(
    "down-bias-gradient-not-weighted", "M86", "of_down_bias", real="NVIDIA-NeMo/Automodel#2591"
)
def _(w: LearnerWork) -> Array | None:
    """The bias of an expert's answer learned as if every route weighed 1."""
    return of_bias(w, w.at_rows, "down")


@learner(
    "expert-biases-never-learn",
    "M86",
    "of_gate_bias",
    "of_up_bias",
    real="flagos-ai/vllm-plugin-FL#401",
)
def _(w: LearnerWork, stage: str) -> Array | None:
    """Biases before the activation were passed on without a graph."""
    return None

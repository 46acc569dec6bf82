"""Mutants of experts: activations, gate and up, weights, biases, precision."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.conformance.zoo.router.runner import (
    ACTIVATE,
    RunnerWork,
    StagedRunner,
    activated,
    clamped,
    product,
)
from moe_routing.implementations import Capabilities, Computes
from moe_routing.reference import gate_up
from moe_routing.reference.activations import CLAMPED
from moe_routing.reference.formats import BFLOAT16, FLOAT16

runner = partial(mutant, makes=StagedRunner)


def _instead(w: RunnerWork, **others: str) -> Array:
    """Return the inner values with one activation in the place of another."""
    swapped = {name.replace("_", "-"): ACTIVATE[other] for name, other in others.items()}
    return activated(w, {**ACTIVATE, **swapped})


# Activations.


@runner("silu-for-gelu", "M82", "inner", real="sgl-project/sglang#3170")
def _(w: RunnerWork) -> Array:
    """The fused kernel knew one activation, and models with GELU got SiLU."""
    return _instead(w, gelu="silu")


@runner("silu-for-gelu-tanh", "M82", "inner", real="huggingface/candle#3745")
def _(w: RunnerWork) -> Array:
    """SiLU was written into the code of a model with the tanh form of GELU: output got worse."""
    return _instead(w, gelu_tanh="silu")


@runner("gelu-tanh-for-silu", "M82", "inner", real="FastCrest/tether#241")
def _(w: RunnerWork) -> Array:
    """The activation of another model family was used."""
    return _instead(w, silu="gelu-tanh")


@runner("exact-gelu-for-its-tanh-form", "M82", "inner", real="m87-labs/kestrel#162")
def _(w: RunnerWork) -> Array:
    """An optimised path had the exact GELU where the model has the tanh form."""
    return _instead(w, gelu_tanh="gelu")


@runner("tanh-form-for-exact-gelu", "M82", "inner", real="tenstorrent/tt-metal#1262")
def _(w: RunnerWork) -> Array:
    """Approximation on and off meant two functions, and not the ones that were asked for."""
    return _instead(w, gelu="gelu-tanh")


@runner("gelu-by-a-sigmoid", "M82", "inner", real="onnxruntime/mobius#546")
def _(w: RunnerWork) -> Array:
    """GELU was exported as ``x sigmoid(1.702 x)``, which is only near it."""

    def near(x: Array) -> Array:
        return x * sigmoid(np.float32(1.702) * x)

    return activated(w, {**ACTIVATE, "gelu": near, "gelu-tanh": near})


@runner("silu-for-relu", "M82", "inner", real="NVIDIA/Megatron-LM#5999")
def _(w: RunnerWork) -> Array:
    """Two branches tested for the same activation, so that ReLU was never chosen."""
    return _instead(w, relu="silu")


@runner("gated-without-a-gate", "M82", "inner", real="Dao-AILab/sonic-moe#2")
def _(w: RunnerWork) -> Array:
    """Experts without a gate were run as if they had one: up was multiplied with itself."""
    right: Array = w.right("inner")
    return right if w.config.gated else w.stored(right * w.up)


@runner("clamp-missing", "M82", "inner", real="lightseekorg/tokenspeed#1647")
def _(w: RunnerWork) -> Array:
    """The limit never reached the kernel, and 40 layers ran unclamped."""
    return _clamped(w, 1e30, w.config.alpha)


@runner("alpha-lost", "M82", "inner", real="sgl-project/sglang#28092")
def _(w: RunnerWork) -> Array:
    """The parameters of a clamped SwiGLU were dropped: such models wrote garbage."""
    return _clamped(w, w.config.limit, 1.0)


@runner("alpha-of-gpt-oss", "M82", "inner", real="sgl-project/sglang#28092")
def _(w: RunnerWork) -> Array:
    """The kernel had gpt-oss's alpha in it, whatever the model's configuration said."""
    return _clamped(w, w.config.limit, 1.702)


@runner("limit-of-gpt-oss", "M82", "inner", real="lightseekorg/tokenspeed#1647")
def _(w: RunnerWork) -> Array:
    """The model's limit never reached the kernel, which had gpt-oss's."""
    return _clamped(w, 7.0, w.config.alpha)


@runner("one-not-added-to-up", "M82", "inner", real="sgl-project/sglang#39939")
def _(w: RunnerWork) -> Array:
    """Plain SwiGLU ran in the place of gpt-oss's, which adds 1 to up."""
    if w.config.activation != CLAMPED:
        return activated(w)
    return clamped(w, w.gate, np.clip(w.up, -w.config.limit, w.config.limit) - 1, 1e30, 1.702)


def _clamped(w: RunnerWork, limit: float, alpha: float) -> Array:
    if w.config.activation != CLAMPED:
        return activated(w)
    return clamped(w, w.gate, w.up, limit, alpha)


# Gate and up, and the layouts of weights.


@runner("gate-and-up-swapped", "M83", "matrices", real="flashinfer-ai/flashinfer#4130")
def _(w: RunnerWork) -> Mapping[str, Array]:
    """A kernel wants up first and gate second, and its page said the reverse."""
    found = dict(w.inputs.arrays())
    if w.config.gated:
        for part in ("weight", "bias"):
            gate, up = f"gate_{part}", f"up_{part}"
            pair = {gate: found.get(up), up: found.get(gate)}
            found.update({name: each for name, each in pair.items() if each is not None})
    return found


@runner("interleaved-read-as-concatenated", "M83", "matrices", real="microsoft/onnxruntime#28738")
def _(w: RunnerWork) -> Mapping[str, Array]:
    """Rows of gate and up come in turn in one model, and one after the other in most."""
    found = dict(w.inputs.arrays())
    if w.config.gated:
        joined = gate_up(w.inputs, interleaved=True)
        half = w.inputs.width
        found |= {"gate_weight": joined[:, :half], "up_weight": joined[:, half:]}
    return found


@runner("square-weights-not-transposed", "M83", "matrices", real="unslothai/unsloth-zoo#849")
def _(w: RunnerWork) -> Mapping[str, Array]:
    """Whether to transpose was read off the shape, which is silent where a weight is square."""
    found = dict(w.inputs.arrays())
    if w.inputs.width == w.inputs.hidden_size:
        found["down_weight"] = found["down_weight"].swapaxes(1, 2)
    if 2 * w.inputs.width == w.inputs.hidden_size and w.config.gated:
        joined = gate_up(w.inputs).swapaxes(1, 2)
        half = w.inputs.width
        found |= {"gate_weight": joined[:, :half], "up_weight": joined[:, half:]}
    return found


# Routing weights.


@runner("weight-on-the-input", "M84", "x", "weighted", real="vllm-project/vllm#16744")
def _(w: RunnerWork, stage: str) -> Array:
    """The weight was applied before the activation, which is not linear."""
    if w.config.weight_on == "input":
        return w.right(stage)  # type: ignore[no-any-return]
    return w.stored(w.inputs.hidden[w.tokens] * w.scale) if stage == "x" else w.answers


@runner("weight-on-the-output", "M84", "x", "weighted", real="sgl-project/sglang#7889")
def _(w: RunnerWork, stage: str) -> Array:
    """Llama 4 scales the input of an expert; a path without that scaled its output."""
    if stage == "x":
        return w.inputs.hidden[w.tokens]
    return w.stored(w.answers * w.scale)


@runner("weight-applied-twice", "M84", "weighted", real="vllm-project/vllm#43694")
def _(w: RunnerWork) -> Array:
    """The weight had been applied to the input, and was applied to the output again."""
    once: Array = w.right("weighted")
    return w.stored(once * w.scale)


@runner("weights-squared", "M84", "weights", real="vllm-project/vllm#43694")
def _(w: RunnerWork) -> Array:
    """Both sides multiplied with the routing weight."""
    return w.stored(w.inputs.weights * w.inputs.weights)


@runner("weight-of-another-slot", "M63", "weights", real="vllm-project/vllm-xpu-kernels#66")
def _(w: RunnerWork) -> Array:
    """With more than one slot the combine took the weight of a neighbour."""
    return np.where(w.inputs.expert_ids < 0, 0, np.roll(w.inputs.weights, 1, axis=1))


@runner("masked-weights-unused", "M63", "weights", real="ml-explore/mlx-lm@e1e66c0d")
def _(w: RunnerWork) -> Array:
    """Weights of experts that do not count were set to 0, and the ones before that were used."""
    masked = (w.inputs.weights == 0) & (w.inputs.expert_ids >= 0)
    return np.where(masked, np.float32(0.5), w.inputs.weights)


# Biases.


@runner("down-bias-not-weighted", "M63", "weighted", real="NVIDIA-NeMo/Automodel#2591")
def _(w: RunnerWork) -> Array:
    """The bias was added once a slot, unweighted: the loss began at 8.2 in place of 4.5."""
    bias = w.matrices.get("down_bias")
    if bias is None or w.config.weight_on == "input":
        return w.right("weighted")  # type: ignore[no-any-return]
    return w.stored(w.stored(product(w, w.inner, "down")) * w.scale + bias[w.owners])


@runner("down-bias-added-twice", "M63", "answers", real="pytorch/torchtitan#4245")
def _(w: RunnerWork) -> Array:
    """Each of several ranks added the bias before they were summed."""
    bias, right = w.matrices.get("down_bias"), w.right("answers")
    return right if bias is None else w.stored(right + bias[w.owners])


@runner("biases-ignored", "M04", "matrices", real="vllm-project/vllm#26289")
def _(w: RunnerWork) -> Mapping[str, Array]:
    """A kernel without biases ran models that have some."""
    return {n: each for n, each in w.inputs.arrays().items() if not n.endswith("_bias")}


@runner("inner-biases-ignored", "M04", "matrices", real="flagos-ai/vllm-plugin-FL#401")
def _(w: RunnerWork) -> Mapping[str, Array]:
    """A call site did not pass the biases of gate and up on."""
    lost = ("gate_bias", "up_bias")
    return {n: each for n, each in w.inputs.arrays().items() if n not in lost}


# Precision.


def _in_steps(w: RunnerWork, x: Array, name: str) -> Array:
    """Return a product whose partial sums are stored in 16 bits."""
    form = FLOAT16 if w.inputs.dtype == "float16" else BFLOAT16
    bias, matrix = w.matrices.get(f"{name}_bias"), w.matrices[f"{name}_weight"][w.owners]
    out = np.zeros((len(x), matrix.shape[1]), np.float32)
    for column in range(x.shape[1]):
        out = form.round(out + x[:, column, None] * matrix[:, :, column]).astype(np.float32)
    return out if bias is None else w.stored(out + bias[w.owners])


@runner("sums-in-16-bits", "M85", "gate", "up", "answers", real="microsoft/onnxruntime#29166")
def _(w: RunnerWork, stage: str) -> Array:
    """Products of matrices were summed in 16 bits to be faster."""
    return _in_steps(w, w.inner, "down") if stage == "answers" else _in_steps(w, w.x, stage)


@runner("tf32-not-declared", "M85", "x", "inner", "matrices", real="triton-lang/triton#1937")
def _(w: RunnerWork, stage: str) -> Any:
    """Float32 products rounded their operands to 11 bits, by default."""
    right = w.right(stage)
    if w.inputs.dtype != "float32":
        return right
    if stage != "matrices":
        return _cut(right)
    return {n: _cut(each) if n.endswith("_weight") else each for n, each in right.items()}


def _cut(values: Array) -> Array:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFFE000)
    return bits.view(np.float32)


@runner("weights-in-bfloat16", "M13", "weights", real="flashinfer-ai/flashinfer@71a10aff9")
def _(w: RunnerWork) -> Array:
    """Routing weights went through bfloat16 on their way to a float32 layer."""
    return BFLOAT16.round(w.inputs.weights).astype(np.float32)


@runner(
    "silu-for-the-only-activation",
    "M82",
    "inner",
    real="sgl-project/sglang#21145",
    claims=Capabilities(computes=Computes(activations=("relu", "gelu"), gated=(False,))),
)
def _(w: RunnerWork) -> Array:
    """Backends had gated SiLU written into them, and models without a gate got SiLU."""
    return _instead(w, relu="silu", gelu="silu")

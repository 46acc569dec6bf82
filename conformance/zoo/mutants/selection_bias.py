"""Mutants of the selection bias."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.mutants.logits import to_bfloat16
from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import SCORE_FUNCTIONS, Array
from moe_routing.conformance.zoo.router.memory import as_rows, reinterpreted
from moe_routing.conformance.zoo.router.stages import RIGHT, biased
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference.formats import INPUT_FORMATS


@mutant("bias-added-twice", "M03", "biased", real="ROCm/aiter@632367677a")
def _(w: Work) -> Array:
    """The balance that training had found was overshot."""
    return w.scores if w.selection_bias is None else biased(w) + w.selection_bias


@mutant(
    "bias-before-and-after-softmax-above-8-tokens",
    "M03",
    "biased",
    real="ROCm/aiter@632367677a",
    needs="9 tokens",
)
def _(w: Work) -> Array:
    """Prefill and decode took different experts for the same token."""
    if w.selection_bias is None or w.num_tokens <= 8:
        return biased(w)
    score = SCORE_FUNCTIONS[w.config.score]
    return score(w.operated + w.selection_bias) + w.selection_bias


@mutant("bias-before-the-score", "M03", "biased", real="NVIDIA/Megatron-LM@eec34ff3ae")
def _(w: Work) -> Array:
    """The bias went into the sigmoid, where it saturates: training converged elsewhere."""
    if w.selection_bias is None:
        return w.scores
    return SCORE_FUNCTIONS[w.config.score](w.operated + w.selection_bias)


@mutant("bias-ignored", "M04", "selection_bias", real="ggml-org/llama.cpp#18071")
def _(w: Work) -> None:
    """A fused kernel matched a graph with a bias, and had no place for it."""
    return


@mutant("bias-ignored-under-softmax", "M04", "selection_bias", real="vllm-project/vllm#21586")
def _(w: Work) -> Array | None:
    """Ernie 4.5's bias was never wired to its softmax router."""
    return None if w.config.score == "softmax" else w.inputs.selection_bias


@mutant("bias-ignored-for-one-token", "M04", "selection_bias", real="NVIDIA/TensorRT-LLM#13294")
def _(w: Work) -> Array | None:
    """The fused path for decoding lost the bias that the other path kept."""
    return None if w.num_tokens == 1 else w.inputs.selection_bias


def _ignored_on(place: str, real: str, harm: str) -> None:
    def selection_bias(w: Work) -> Array | None:
        return None if w.inputs.selection_bias_on == place else w.inputs.selection_bias

    selection_bias.__doc__ = harm
    mutant(f"bias-on-{place}-ignored", "M04", "selection_bias", real=real)(selection_bias)


_ignored_on(
    "block",
    "sgl-project/sglang#27916",
    "MiniMax keeps its bias on the block; who looked on the gate routed without one.",
)
_ignored_on(
    "statics",
    "vllm-project/vllm#21586",
    "Ernie keeps its bias in a statics module, where nobody looked.",
)


@mutant("bias-remembered", "M05", "selection_bias", real="sgl-project/sglang#10440")
def _(w: Work) -> Array | None:
    """The kernel kept the tensor of before the weights were loaded."""
    if w.inputs.selection_bias is None:
        return None
    remembered: Array = w.memory.setdefault(w.inputs.num_experts, w.inputs.selection_bias)
    return remembered


@mutant("bias-from-fresh-memory", "M05", "selection_bias", real="sgl-project/sglang#10440")
def _(w: Work) -> Array | None:
    """Before the weights were loaded, the tensor held what the memory had held: any expert."""
    bias, held = w.inputs.selection_bias, np.array([0.0, 3.5, -1.25, 7.0, -20.0], np.float32)
    return None if bias is None else np.resize(held, bias.shape)


@mutant("bfloat16-bias", "M06", "selection_bias", real="sgl-project/sglang#31213")
def _(w: Work) -> Array | None:
    """Biases around 7 collapsed from 238 values to 8, and the balance with them."""
    bias = w.inputs.selection_bias
    return None if bias is None else to_bfloat16(bias)


@mutant("bias-in-the-dtype-of-the-logits", "M06", "selection_bias", real="sgl-project/sglang#8212")
def _(w: Work) -> Array | None:
    """A kernel read the float32 bias in the dtype of its 16-bit logits."""
    bias = w.inputs.selection_bias
    return None if bias is None else INPUT_FORMATS[w.inputs.dtype].round(bias).astype(np.float32)


@mutant(
    "bias-rounded-under-bfloat16-only",
    "M06",
    "selection_bias",
    real="huggingface/transformers 5.23.0, afmoe",
)
def _(w: Work) -> Array | None:
    """What kept the bias in float32 held for float16 only: loaded in bfloat16, it was rounded."""
    bias = w.inputs.selection_bias
    return bias if bias is None or w.inputs.dtype != "bfloat16" else to_bfloat16(bias)


@mutant(
    "bfloat16-bias-above-8-tokens",
    "M06",
    "selection_bias",
    real="NVIDIA/TensorRT-LLM#13328",
    needs="9 tokens",
)
def _(w: Work) -> Array | None:
    """Only the path for larger batches narrowed the bias."""
    bias = w.inputs.selection_bias
    return bias if bias is None or w.num_tokens <= 8 else to_bfloat16(bias)


@mutant("bias-read-as-bfloat16", "M07", "selection_bias", real="flashinfer-ai/flashinfer#2909")
def _(w: Work) -> Array | None:
    """Each half of a float32 bias was taken for a bias of its own."""
    bias = w.inputs.selection_bias
    return None if bias is None else reinterpreted(bias, "float32", "bfloat16")


@mutant("bias-read-as-float32", "M07", "selection_bias", real="sgl-project/sglang#10426")
def _(w: Work) -> Array | None:
    """A bias stored in 16 bits went to a kernel that expected 32."""
    bias = w.inputs.selection_bias
    return None if bias is None else reinterpreted(bias, "bfloat16", "float32")


@mutant("strided-bias-read-as-rows", "M40", "selection_bias", real="flashinfer-ai/flashinfer#4713")
def _(w: Work) -> Array | None:
    """A strided bias lent every second expert the value of its neighbour."""
    bias = w.inputs.selection_bias
    return None if bias is None else as_rows(bias)


@mutant("absent-bias-raises", "M09", "selection_bias", real="flashinfer-ai/flashinfer#2373")
def _(w: Work) -> Array | None:
    """Sigmoid routers without a bias crashed on a null pointer."""
    if w.inputs.selection_bias is None and w.config.score == "sigmoid":
        raise AttributeError("'NoneType' object has no attribute 'data_ptr'")
    bias: Array | None = RIGHT["selection_bias"](w)
    return bias

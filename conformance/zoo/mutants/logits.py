"""Mutants of the logits."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.residents import ROUTED, mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import as_rows, reinterpreted
from moe_routing.conformance.zoo.router.stages import gate_input, logits
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference.formats import FORMATS, INPUT_FORMATS

BFLOAT16 = FORMATS["bfloat16"]


def to_bfloat16(values: Array) -> Array:
    """Round to bfloat16, stored in float32."""
    return BFLOAT16.round(values).astype(np.float32)


@mutant("bfloat16-logits", "M10", "logits", real="vllm-project/vllm#14027")
def _(w: Work) -> Array:
    """Models that keep the gate's output in float32 lost accuracy on every near tie."""
    return to_bfloat16(logits(w))


@mutant(
    "bfloat16-logits-returned",
    "M10",
    "logits",
    "reported_logits",
    real="huggingface/transformers#41385",
    claims=ROUTED,
)
def _(w: Work, stage: str) -> Array:
    """Autocast reached the gate: Ernie routed, and reported, logits of 8 bits."""
    return to_bfloat16(logits(w)) if stage == "logits" else w.logits


@mutant(
    "bfloat16-logits-above-8-tokens",
    "M10",
    "logits",
    real="wtdcode/vllm-backport#65",
    needs="9 tokens",
)
def _(w: Work) -> Array:
    """A token was routed one way alone and another way in a batch of nine."""
    return to_bfloat16(logits(w)) if w.num_tokens > 8 else logits(w)


@mutant("bfloat16-logits-in-fallback", "M10", "logits", real="sgl-project/sglang#30323")
def _(w: Work) -> Array:
    """Sizes that the fast gate did not cover were routed in bfloat16."""
    return logits(w) if w.config.num_experts % 8 == 0 else to_bfloat16(logits(w))


@mutant(
    "logits-in-the-dtype-of-the-input",
    "M10",
    "logits",
    real="deepspeedai/DeepSpeed 0.19.8, ep_router",
)
def _(w: Work) -> Array:
    """The cast to float32 came after the product: at DeepSeek-V3's sizes one token in a hundred
    got other experts.
    """
    return INPUT_FORMATS[w.inputs.dtype].round(logits(w)).astype(np.float32)


@mutant("bfloat16-gate", "M10", "gate_weight", real="sgl-project/sglang#38719")
def _(w: Work) -> Array:
    """Float32 gates were narrowed with the rest of the model, and near ties changed sides."""
    return to_bfloat16(w.inputs.gate_weight)


@mutant("fp8-gate", "M10", "gate_weight", real="axolotl-ai-cloud/axolotl@0b8cfdb8e")
def _(w: Work) -> Array:
    """The conversion of all linear layers to fp8 took the router's along."""
    mantissa, exponent = np.frexp(w.inputs.gate_weight)
    gate: Array = np.ldexp(np.rint(mantissa * 16) / 16, exponent)
    return gate.astype(np.float32)


@mutant(
    "bfloat16-logits-read-as-float32",
    "M12",
    "logits",
    real="flashinfer-ai/flashinfer#2889",
)
def _(w: Work) -> Array:
    """Two bfloat16 logits were read as one float32: experts at random."""
    z = logits(w)
    return reinterpreted(z, "bfloat16", "float32") if w.inputs.dtype == "bfloat16" else z


@mutant(
    "float32-logits-read-as-bfloat16",
    "M12",
    "logits",
    real="flashinfer-ai/flashinfer@182dc2038",
)
def _(w: Work) -> Array:
    """Half of a float32 logit was taken for a whole bfloat16 one."""
    z = logits(w)
    return reinterpreted(z, "float32", "bfloat16") if w.inputs.dtype == "float32" else z


@mutant("linear-bias-ignored", "M04", "gate_bias", real="pytorch/torchtitan@41753c67b")
def _(w: Work) -> None:
    """gpt-oss was trained with a bias on its gate, and ran without one."""
    return


@mutant("lora-delta-ignored", "M04", "gate_delta", real="ml-explore/mlx-examples#396")
def _(w: Work) -> None:
    """A fine-tuned gate was never applied: routing stayed that of the base model."""
    return


@mutant("strided-hidden-read-as-rows", "M40", "hidden", real="ROCm/aiter@c859a2cacb")
def _(w: Work) -> Array:
    """A slice of a wider tensor was read as if its rows lay end to end."""
    return as_rows(w.inputs.hidden)


@mutant("strided-gate-read-as-rows", "M40", "gate_weight", real="laekov/fastmoe#215")
def _(w: Work) -> Array:
    """A transposed gate was read as rows; an assertion came later, a fix did not."""
    return as_rows(w.inputs.gate_weight)


@mutant("logits-reshaped-not-transposed", "M52", "logits", real="huggingface/transformers#40609")
def _(w: Work) -> Array:
    """Scores [E, T] were viewed as [T, E]: Llama 4 answered garbage."""
    z = logits(w)
    return np.ascontiguousarray(z.T).reshape(z.shape)


@mutant(
    "halves-viewed-across-tokens",
    "M52",
    "logits",
    real="huggingface/transformers 5.23.0, doge",
    needs="2 tokens",
)
def _(w: Work) -> Array:
    """[T, 2, E / 2] was viewed as [2, T, E / 2]: later tokens changed what earlier ones chose."""
    z = logits(w)
    if z.shape[1] % 2:
        return z
    return np.concatenate(z.reshape(2, len(z), -1), axis=1)


@mutant("input-norm-twice", "M77", "gate_input", real="NVIDIA-NeMo/Automodel#1852")
def _(w: Work) -> Array:
    """The layer normalised Gemma 4's hidden states, then the gate did: every layer misrouted."""
    normed = gate_input(w)
    return gate_input(w.redone(hidden=lambda _: normed))

"""Mutants of the weights."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.mutants.logits import to_bfloat16
from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.conformance.zoo.router.stages import (
    at_ids,
    gathered,
    norm,
    norm_of,
    renormalized,
    scaled,
    weights,
)
from moe_routing.conformance.zoo.router.work import Work


@mutant("bias-in-weights", "M01", "gathered", real="vllm-project/vllm#12002")
def _(w: Work) -> Array:
    """Popular experts were weighted by their popularity: DeepSeek-V3 lost accuracy."""
    return at_ids(w, w.biased) if w.config.weights_from == "scores" else gathered(w)


@mutant("bias-in-weights-without-groups", "M01", "gathered", real="PaddlePaddle/PaddleFormers#3452")
def _(w: Work) -> Array:
    """The compact weights of one path came from the biased scores; the dense ones were right."""
    plain = w.config.weights_from == "scores" and w.config.groups is None
    return at_ids(w, w.biased) if plain else gathered(w)


@mutant("bias-in-softmax-weights", "M01", "gathered", real="huggingface/transformers#39581")
def _(w: Work) -> Array:
    """Ernie's biased probabilities were returned as its weights."""
    plain = w.config.weights_from == "scores" and w.config.score == "softmax"
    return at_ids(w, w.biased) if plain else gathered(w)


@mutant("sigmoid-of-biased-winners", "M01", "gathered", real="NVIDIA/Megatron-LM@eec34ff3ae")
def _(w: Work) -> Array:
    """A change for Llama 4 reused the biased top-k values of every sigmoid router."""
    if w.selection_bias is None or w.config.score != "sigmoid":
        return gathered(w)
    return sigmoid(at_ids(w, w.operated + w.selection_bias))


@mutant("bias-taken-off-again", "M79", "gathered", real="NVIDIA/TransformerEngine@d0067d0")
def _(w: Work) -> Array:
    """(score + bias) - bias lost the low bits of small scores, and was NaN at a bias of -inf."""
    bias = w.selection_bias
    if bias is None or w.config.weights_from != "scores":
        return gathered(w)
    return at_ids(w, w.biased - bias)


@mutant("table-rows-weighted-evenly", "M78", "gathered", real="erfanzar/EasyDeL@0317bfa4838")
def _(w: Work) -> Array:
    """Every expert that the table names got 1 / K, whatever the gate had learnt."""
    if w.inputs.expert_table is None:
        return gathered(w)
    return np.full(w.expert_ids.shape, 1 / w.config.top_k, np.float32)


@mutant("bfloat16-weights-in-float32", "M13", "weights", real="flashinfer-ai/flashinfer@71a10aff9")
def _(w: Work) -> Array:
    """Weights of 8 bits were written to a buffer that promised 24."""
    return to_bfloat16(weights(w))


@mutant("float16-weights", "M13", "weights", real="flashinfer-ai/flashinfer@71a10aff9")
def _(w: Work) -> Array:
    """Weights were stored in 16 bits where the router promises float32."""
    return weights(w).astype(np.float16)


@mutant("integer-weights", "M13", "weights", real="vllm-project/vllm-ascend#14234")
def _(w: Work) -> Array:
    """Weights took the dtype of quantised activations: all 0 or 1."""
    return np.trunc(weights(w))


@mutant("cast-before-renormalisation", "M13", "gathered", real="kyegomez/OpenMythos#41")
def _(w: Work) -> Array:
    """The sum of the weights carried the rounding of bfloat16."""
    return to_bfloat16(gathered(w)) if w.config.renormalize else gathered(w)


@mutant("renormalisation-dropped", "M16", "renormalized", real="axolotl-ai-cloud/axolotl@86487c2e9")
def _(w: Work) -> Array:
    """Mixtral's weights summed to less than 1, and its outputs shrank."""
    return w.gathered


@mutant(
    "renormalisation-dropped-for-sigmoid", "M16", "renormalized", real="vllm-project/vllm#31246"
)
def _(w: Work) -> Array:
    """One backend's sigmoid path did not read the flag."""
    return w.gathered if w.config.score == "sigmoid" else renormalized(w)


@mutant(
    "renormalisation-dropped-in-groups", "M16", "renormalized", real="PaddlePaddle/FastDeploy#4449"
)
def _(w: Work) -> Array:
    """One grouped kernel was called without it: gsm8k 0.016 where 0.78 was due elsewhere."""
    return w.gathered if w.config.groups else renormalized(w)


@mutant(
    "renormalisation-only-above-top-1", "M16", "renormalized", real="NVIDIA/Megatron-LM@d98e8a64"
)
def _(w: Work) -> Array:
    """With K = 1 the raw sigmoid stayed where the model divides it by itself."""
    return w.gathered if w.config.top_k == 1 else renormalized(w)


@mutant("norm-over-the-batch", "M18", "norm", real="databricks/megablocks@04e4f1f")
def _(w: Work) -> Array:
    """A flattened norm: every token's weights depended on the batch."""
    return np.broadcast_to(norm(w).sum(axis=0, keepdims=True), (w.num_tokens, 1))


@mutant("epsilon-dropped", "M20", "norm", real="flashinfer-ai/flashinfer@c53229efd")
def _(w: Work) -> Array:
    """Where every selected sigmoid underflows, 0 / 0 poisoned the batch."""
    return np.maximum(norm_of(w), np.float32(w.rule.floor))


@mutant("epsilon-dropped-in-groups", "M20", "norm", real="flashinfer-ai/flashinfer@57b771995")
def _(w: Work) -> Array:
    """The grouped path had no epsilon, the other had."""
    return norm_of(w) if w.config.groups else norm(w)


@mutant("epsilon-too-large", "M20", "norm", real="ggml-org/llama.cpp#16655")
def _(w: Work) -> Array:
    """One model's epsilon served all: weights of unlikely experts sank."""
    return norm(w) + np.float32(1e-6)


@mutant("floor-dropped", "M20", "norm", real="ml-explore/mlx-lm@f3187417")
def _(w: Work) -> Array:
    """A clamp was ported as nothing, and tiny norms blew up."""
    return norm_of(w) + np.float32(w.rule.eps)


@mutant("epsilon-twice", "M20", "norm", real="NVIDIA/Megatron-LM#1545")
def _(w: Work) -> Array:
    """A router learnt to push its scores below the epsilon; any change to it is seen there."""
    return norm(w) + np.float32(w.rule.eps)


@mutant("epsilon-where-none-is-due", "M20", "norm", real="deepspeedai/DeepSpeed 0.19.8, ep_router")
def _(w: Work) -> Array:
    """DeepSeek-V3's 1e-20 was added for MiniMax as well: weights of tiny scores lost their sum."""
    return norm(w) if w.rule.eps else norm(w) + np.float32(1e-20)


@mutant("scale-skipped", "M21", "scaled", real="flashinfer-ai/flashinfer@37b397cd1")
def _(w: Work) -> Array:
    """A scale initialised to 1 was never set: routed experts counted for less than half."""
    return w.renormalized


@mutant("scale-only-where-renormalized", "M21", "scaled", real="sgl-project/sglang-jax#1282")
def _(w: Work) -> Array:
    """The factor stood inside the branch that renormalises."""
    return w.renormalized if w.config.renormalize is None else scaled(w)


@mutant("scale-only-where-not-renormalized", "M21", "scaled", real="sgl-project/sglang#31449")
def _(w: Work) -> Array:
    """The NPU path scaled in the other branch only."""
    return scaled(w) if w.config.renormalize is None else w.renormalized


@mutant("scale-skipped-without-groups", "M21", "scaled", real="vllm-project/vllm#44347")
def _(w: Work) -> Array:
    """A model without groups was taken for one that has no factor."""
    return scaled(w) if w.config.groups else w.renormalized


@mutant("zero-scale-ignored", "M21", "scaled", real="NVIDIA/Megatron-LM 0.16.1, moe_utils")
def _(w: Work) -> Array:
    """`if scale:` took 0 for none: experts that were to be switched off stayed fully on."""
    return scaled(w) if w.config.scale else w.renormalized


@mutant("scale-before-renormalisation", "M21", "gathered", "scaled", real="sgl-project/sglang#8511")
def _(w: Work, stage: str) -> Array:
    """Scaled first and renormalised after, the factor cancels."""
    return gathered(w) * np.float32(w.config.scale) if stage == "gathered" else w.renormalized


@mutant("scale-twice", "M22", "scaled", real="vllm-project/vllm#45037")
def _(w: Work) -> Array:
    """The router applied 2.5, and the layer applied it again."""
    return scaled(w) * np.float32(w.config.scale)


@mutant(
    "scale-twice-above-8-tokens", "M22", "scaled", real="sgl-project/sglang#35152", needs="9 tokens"
)
def _(w: Work) -> Array:
    """Only the path that overlaps two batches repeated the factor."""
    return scaled(w) * np.float32(w.config.scale if w.num_tokens > 8 else 1.0)


@mutant("weights-sorted-apart", "M52", "weights", real="xberg-io/xberg#1211")
def _(w: Work) -> Array:
    """Weights in one order, experts in another: each expert with its neighbour's weight."""
    return weights(w)[:, ::-1]


@mutant(
    "weights-of-the-next-token", "M52", "weights", real="unslothai/unsloth#3953", needs="2 tokens"
)
def _(w: Work) -> Array:
    """Rows were gathered by slot where they are counted by token."""
    return np.roll(weights(w), 1, axis=0)


@mutant("expert-scale-by-slot", "M52", "weights", real="tenstorrent/tt-metal#47914")
def _(w: Work) -> Array:
    """Each slot took the scale of its own position."""
    scale = w.per_expert_scale
    return weights(w) if scale is None else w.scaled * scale[: w.config.top_k]


@mutant("raw-weights-every-second-call", "M34", "weights", real="flagos-ai/FlagGems#5123")
def _(w: Work) -> Array:
    """Raw scores were read back before they were written: weights changed from run to run."""
    w.memory["calls"] = w.memory.get("calls", 0) + 1
    raced = w.config.renormalize is not None and w.memory["calls"] % 2 == 0
    return scaled(w.redone(renormalized=lambda each: each.gathered)) if raced else weights(w)

"""Mutants of the scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.zoo.mutants.logits import to_bfloat16
from moe_routing.conformance.zoo.residents import ROUTED, mutant
from moe_routing.conformance.zoo.router.functions import Array, shares, sigmoid, softmax
from moe_routing.conformance.zoo.router.stages import RIGHT, at_ids, gathered, renormalized
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference.formats import INPUT_FORMATS


def right_scores(w: Work) -> Array:
    """Return the scores of the configured function."""
    scores: Array = RIGHT["scores"](w)
    return scores


@mutant("bfloat16-scores", "M11", "scores", real="ViperEkura/AstrAI#57")
def _(w: Work) -> Array:
    """Near scores became ties; a recomputed layer took other experts than the rollout had."""
    return to_bfloat16(right_scores(w))


@mutant("bfloat16-scores-in-groups", "M11", "scores", real="flagos-ai/FlagGems#4245")
def _(w: Work) -> Array:
    """The grouped kernel computed its scores in the dtype of the activations."""
    return right_scores(w) if w.config.groups is None else to_bfloat16(right_scores(w))


@mutant("scores-in-the-dtype-of-the-input", "M11", "scores", real="pytorch/torchtitan 0.3.0, moe")
def _(w: Work) -> Array:
    """An autocast to float32 is disabled on a CPU: tests ran there in bfloat16, unlike training."""
    return INPUT_FORMATS[w.inputs.dtype].round(right_scores(w)).astype(np.float32)


@mutant("softmax-for-sigmoid", "M14", "scores", real="axolotl-ai-cloud/axolotl@8f3fb517b")
def _(w: Work) -> Array:
    """GLM and DeepSeek-V3 were trained on wrong experts, without an error."""
    return softmax(w.operated) if w.config.score == "sigmoid" else right_scores(w)


@mutant("softmax-for-everything", "M14", "scores", real="NVIDIA/TensorRT-Model-Connect#669")
def _(w: Work) -> Array:
    """An exported DeepSeek-V3 took a softmax and one top-k over all experts."""
    return softmax(w.operated)


@mutant("sigmoid-for-sqrtsoftplus", "M14", "scores", real="flashinfer-ai/flashinfer#5211")
def _(w: Work) -> Array:
    """Weights above 1 are legal under sqrt-softplus, and were squashed."""
    return sigmoid(w.operated) if w.config.score == "sqrtsoftplus" else right_scores(w)


@mutant(
    "softmax-weights-at-128-experts-8",
    "M14",
    "gathered",
    real="MetaX-MACA/vLLM-metax#270",
    needs="128 experts, K=8",
)
def _(w: Work) -> Array:
    """One template of many took another branch: right experts, wrong weights, one shape."""
    shape = (w.config.num_experts, w.config.top_k)
    sigmoids = w.config.score == "sigmoid" and w.config.weights_from == "scores"
    return at_ids(w, softmax(w.operated)) if sigmoids and shape == (128, 8) else gathered(w)


@mutant("softmax-of-selected-for-scores", "M15", "gathered", real="NVIDIA/Megatron-LM#955")
def _(w: Work) -> Array:
    """Weights summed to 1 in a model that was trained with less."""
    plain = w.config.score == "softmax" and w.config.weights_from == "scores"
    return softmax(at_ids(w, w.operated)) if plain else gathered(w)


@mutant("softmax-raises", "M14", "scores", real="huggingface/transformers 5.23.0, deepseek_v4")
def _(w: Work) -> Array:
    """A documented scoring_func was looked up among activations: the model could not be built."""
    if w.config.score == "softmax":
        raise KeyError("softmax")
    return right_scores(w)


@mutant("renormalized-though-off", "M15", "renormalized", real="lablup/mlxcel#391")
def _(w: Work) -> Array:
    """OLMoE's norm_topk_prob=false was not read: every layer's output grew."""
    return shares(w.gathered) if w.config.renormalize is None else renormalized(w)


@mutant("renormalize-flag-swapped", "M15", "renormalized", real="vllm-project/vllm#33792")
def _(w: Work) -> Array:
    """Two methods had each other's name: the flag did the opposite."""
    return shares(w.gathered) if w.config.renormalize is None else w.gathered


@mutant("softmax-over-tokens", "M18", "scores", real="deepspeedai/DeepSpeed#2110")
def _(w: Work) -> Array:
    """A softmax over dim 1 of three was one over the sequence: tokens shared their weights."""
    return softmax(w.operated, axis=0) if w.config.score == "softmax" else right_scores(w)


@mutant(
    "softmax-of-selected-over-tokens",
    "M18",
    "gathered",
    real="huggingface/transformers 5.23.0, gpt_oss",
    needs="2 tokens",
)
def _(w: Work) -> Array:
    """dim=1 is the experts of [T, K] and the tokens of [B, S, K]: who called the router alone got
    weights that sum to 1 over a sequence.
    """
    late = w.config.weights_from == "softmax_of_selected"
    return softmax(at_ids(w, w.operated), axis=0) if late else gathered(w)


@mutant("norm-over-tokens-at-top-1", "M18", "norm", real="databricks/megablocks@04e4f1f")
def _(w: Work) -> Array:
    """With K = 1 the squeezed axis made the norm run over the batch."""
    norm = RIGHT["norm"](w)
    return norm if w.config.top_k > 1 else np.broadcast_to(norm.sum(axis=0), norm.shape)


def softmax_from(z: Array, start: float) -> Array:
    """A softmax whose running maximum starts at ``start``."""
    return shares(np.exp(z - np.maximum(z.max(axis=1, keepdims=True), np.float32(start))))


@mutant(
    "softmax-maximum-starts-at-zero", "M28", "scores", real="NVIDIA/TransformerEngine@8e2d37e95"
)
def _(w: Work) -> Array:
    """Rows of very negative logits became 0 / 0."""
    return softmax_from(w.operated, 0.0) if w.config.score == "softmax" else right_scores(w)


@mutant("softmax-without-maximum", "M28", "scores", real="tenstorrent/tt-metal#46633")
def _(w: Work) -> Array:
    """A fused softmax trusted its inputs to be probabilities; logits overflowed it."""
    if w.config.score != "softmax":
        return right_scores(w)
    return shares(np.exp(w.operated))


@mutant(
    "probabilities-returned-as-logits",
    "M66",
    "reported_logits",
    real="huggingface/transformers#45315",
    claims=replace(ROUTED, logits="copy"),
)
def _(w: Work) -> Array:
    """A variable used twice: the balance loss took a softmax of a softmax."""
    return softmax(w.logits)

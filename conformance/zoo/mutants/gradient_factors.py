"""Mutants of gradients: factors, groups, given experts, tokens."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.differentiator import (
    GradientWork,
    StagedDifferentiator,
    at_gathered,
    at_logits,
    at_operated,
    at_renormalized,
    scattered,
)
from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.reference import RouterConfig

differentiator = partial(mutant, makes=StagedDifferentiator)


# Factors.


@differentiator(
    "scale-missing-in-backward", "M64", "at_renormalized", real="sgl-project/sglang#31449"
)
def _(w: GradientWork) -> Array:
    """The routed scaling factor was left out on the way back."""
    at, scales = w.at_weights, w.inputs.per_expert_scale
    return at if scales is None else at * scales[w.saved_ids]


@differentiator("scale-twice-in-backward", "M64", "at_renormalized", real="kvcache-ai/sglang#86")
def _(w: GradientWork) -> Array:
    """The routed scaling factor was applied twice on the way back."""
    return at_renormalized(w) * np.float32(w.config.scale)


@differentiator(
    "expert-scale-missing-in-backward", "M64", "at_renormalized", real="sgl-project/sglang#8511"
)
def _(w: GradientWork) -> Array:
    """Each expert's own scale was left out on the way back."""
    return w.at_weights * np.float32(w.config.scale)


@differentiator(
    "multiplier-missing-in-backward", "M64", "at_logits", real="sgl-project/sglang#8511"
)
def _(w: GradientWork) -> Array:
    """The logit multiplier was left out on the way back."""
    bare = RouterConfig(**{**vars(w.config), "logit_multiplier": 1.0})
    if w.config.logit_softcap is None:
        return w.at_operated
    tanh = w.forward.operated / np.float32(bare.logit_softcap or 1.0)
    return np.asarray(w.at_operated * (1 - tanh * tanh))


@differentiator("softcap-passes", "M64", "at_logits", real="pjreddie/darknet#96")
def _(w: GradientWork) -> Array:
    """The softcap passed its gradient on unchanged."""
    return w.at_operated * np.float32(w.config.logit_multiplier)


@differentiator("signs-swapped", "M64", "at_logits", real="HomericIntelligence/Odyssey#2134")
def _(w: GradientWork) -> Array:
    """The whole gradient had the wrong sign: the router learnt to avoid what helped."""
    return -at_logits(w)


@differentiator("weights-detached", "M64", "at_weights", real="TIML-Group/Robust-MoE-Dual-Model#2")
def _(w: GradientWork) -> Array:
    """The weights were detached before the experts' outputs were added: the router never learnt."""
    return np.zeros(w.saved_ids.shape, np.float32)


@differentiator(
    "cotangent-averaged-over-slots", "M64", "at_weights", real="AI-Hypercomputer/maxtext#5042"
)
def _(w: GradientWork) -> Array:
    """Each token's slots all got the mean of their cotangents."""
    at = np.take_along_axis(w.cotangent, w.saved_ids, axis=1)
    return np.broadcast_to(at.mean(axis=1, keepdims=True), at.shape)


@differentiator(
    "slots-paired-with-sorted-ids", "M64", "at_weights", real="open-lm-engine/lm-engine#4"
)
def _(w: GradientWork) -> Array:
    """The cotangents came in the order of sorted experts, the weights in that of their scores."""
    return np.take_along_axis(w.cotangent, np.sort(w.saved_ids, axis=1), axis=1)


@differentiator("gradient-clipped", "M64", "at_weights", real="microsoft/ltp-megatron-lm#17")
def _(w: GradientWork) -> Array:
    """The router's gradient was clipped at 1 by itself: no longer linear in the loss."""
    at = np.take_along_axis(w.cotangent, w.saved_ids, axis=1)
    return np.asarray(np.clip(at, -1, 1))


@differentiator(
    "gradient-scaled-by-its-norm", "M64", "at_logits", real="microsoft/ltp-megatron-lm#17"
)
def _(w: GradientWork) -> Array:
    """The gradient of each token was divided by its own size."""
    right = at_logits(w)
    size = np.sqrt((right * right).sum(axis=1, keepdims=True))
    return np.asarray(right / np.maximum(size, np.float32(1)))


# Groups, given experts, tokens.


@differentiator(
    "mask-not-differentiated", "M64", "at_operated", real="pytorch/torchtitan@de329200b"
)
def _(w: GradientWork) -> Array:
    """Experts outside the kept groups got no gradient, though they are part of the softmax."""
    return np.where(w.forward.kept, at_operated(w), np.float32(0))


@differentiator(
    "duplicate-written-over", "M64", "at_operated", real="AI-Hypercomputer/maxtext#4826"
)
def _(w: GradientWork) -> Array:
    """The slots' gradients were written to their experts, not added: of two, one was lost."""
    again = np.zeros(w.saved_ids.shape, bool)
    for k in range(1, w.config.top_k):
        again[:, k] = (w.saved_ids[:, :k] == w.saved_ids[:, k : k + 1]).any(axis=1)
    vars(w)["at_gathered"] = np.where(again, np.float32(0), w.at_gathered)
    return at_operated(w)


@differentiator(
    "replayed-experts-get-nothing", "M64", "at_gathered", real="ISEEKYAN/Megatron-LM#79"
)
def _(w: GradientWork) -> Array:
    """Gradients were gathered by a fresh choice: given experts outside it got none."""
    right = at_gathered(w)
    if w.inputs.expert_table is None:
        return right
    scores = np.where(np.isnan(w.forward.scores), -np.inf, w.forward.scores)
    cut = np.sort(scores, axis=1)[:, -w.config.top_k, None]
    chosen = np.take_along_axis(scores, w.saved_ids, axis=1) >= cut
    return np.where(chosen, right, np.float32(0))


@differentiator("scores-clobbered", "M64", "saved_scores", real="databricks/megablocks@46567ec")
def _(w: GradientWork) -> Array:
    """The weights were divided in place in the buffer that the backward pass reads."""
    scores = w.forward.scores.copy()
    if w.has_norm and "selected" not in w.config.weights_from:
        np.put_along_axis(scores, w.saved_ids, w.forward.renormalized, axis=1)
    return scores


@differentiator(
    "recomputed-and-routed-again", "M64", "saved_ids", real="pytorch/torchtitan@7074b056a"
)
def _(w: GradientWork) -> Array:
    """Recomputed in the backward pass, ties fell the other way: the gradient is another route's."""
    ids = w.forward.expert_ids.copy()
    scores = w.forward.scores
    if w.inputs.expert_table is None and w.config.groups is None and len(ids):
        last = np.take_along_axis(scores, ids[:, -1:], axis=1)
        tied = scores == last
        np.put_along_axis(tied, ids, False, axis=1)
        other = np.argmax(tied, axis=1)
        ids[:, -1] = np.where(tied.any(axis=1), other, ids[:, -1])
    return ids


@differentiator(
    "nan-row-ends-the-batch", "M64", "at_logits", real="axolotl-ai-cloud/axolotl@8ed8eef51"
)
def _(w: GradientWork) -> Array:
    """At the first row of NaN the kernel returned: the rows after it kept their zeros."""
    right = at_logits(w)
    bad = np.asarray(np.isnan(w.forward.logits).any(axis=1))
    after = np.cumsum(bad) > 0
    return np.where(after[:, None] & ~bad[:, None], np.float32(0), right)


@differentiator("nan-row-zeroes-all", "M64", "at_logits", real="axolotl-ai-cloud/axolotl@8ed8eef51")
def _(w: GradientWork) -> Array:
    """A step with any NaN in it was skipped by every token."""
    right = at_logits(w)
    return np.zeros_like(right) if np.isnan(right).any() else right


@differentiator(
    "selection-bias-gets-a-gradient", "M64", "of_selection_bias", real="ml-explore/mlx-lm#1897"
)
def _(w: GradientWork) -> Array | None:
    """The bias that balances load was a parameter, with the gradient of the biased scores."""
    if w.inputs.selection_bias is None:
        return None
    return np.asarray(scattered(w, w.at_gathered).sum(axis=0))


@differentiator("slope-in-half-precision", "M64", "at_operated", real="NVIDIA/Megatron-LM#6943")
def _(w: GradientWork) -> Array:
    """The gradient of the logits went through float16 on its way."""
    return at_operated(w).astype(np.float16).astype(np.float32)


@differentiator("sigmoid-clamped", "M64", "at_operated", real="unslothai/unsloth-zoo#858")
def _(w: GradientWork) -> Array:
    """Scores were kept off 0 and 1 by a clamp; its ends had gradients of their own."""
    if w.config.score != "sigmoid" or "selected" in w.config.weights_from:
        return at_operated(w)
    s = np.clip(sigmoid(w.forward.operated), np.float32(1e-3), np.float32(1 - 1e-3))
    return np.asarray(scattered(w, w.at_gathered) * s * (1 - s))

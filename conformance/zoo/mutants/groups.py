"""Mutants of the groups."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.conformance.zoo.mutants.logits import to_bfloat16
from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import (
    biased,
    competing,
    config,
    expert_ids,
    filled,
    group_scores,
    kept,
    sum_of_best,
    table_or,
)
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference import Groups, RouterConfig
from moe_routing.reference.selection import top_k


@mutant("group-score-is-maximum", "M24", "group_scores", real="vllm-project/vllm#13474")
def _(w: Work) -> Array:
    """DeepSeek-V3's groups were ranked by one expert instead of two: other groups won."""
    return sum_of_best(w, 1)


@mutant("group-score-sums-two", "M24", "group_scores", real="EricLBuehler/mistral.rs#1278")
def _(w: Work) -> Array:
    """DeepSeek-V2's groups, ranked by their best expert, were ranked by V3's rule."""
    return sum_of_best(w, 2)


@mutant(
    "group-score-sums-groups-over-kept", "M24", "group_scores", real="NVIDIA/Megatron-LM@325e7c8017"
)
def _(w: Work) -> Array:
    """The number of summed experts was computed from the groups instead of from K."""
    return sum_of_best(w, max(1, w.groups.count // w.groups.kept))


@mutant(
    "group-score-follows-top-k",
    "M24",
    "group_scores",
    real="NVIDIA/Megatron-LM 0.16.1, moe_utils",
)
def _(w: Work) -> Array:
    """A group summed its best K // kept, not its best one: a third of DeepSeek-V2's tokens went
    elsewhere.
    """
    return sum_of_best(w, max(1, w.config.top_k // w.groups.kept))


@mutant(
    "groups-unscored-below-kept",
    "M24",
    "group_scores",
    real="NVIDIA/Megatron-LM 0.16.1, moe_utils",
)
def _(w: Work) -> Array:
    """With K < kept that quotient is 0: every token kept the first groups, and the others idled."""
    right = group_scores(w)
    return np.zeros_like(right) if w.config.top_k < w.groups.kept else right


@mutant(
    "group-of-one-raises",
    "M24",
    "group_scores",
    real="huggingface/transformers 5.23.0, deepseek_v3",
)
def _(w: Work) -> Array:
    """A top-2 over groups of one expert raises: the configuration is legal, the model dies."""
    if w.experts_per_group < w.groups.top:
        raise RuntimeError("selected index k out of range")
    return group_scores(w)


@mutant("groups-ignored", "M25", "kept", real="ggml-org/llama.cpp#16691")
def _(w: Work) -> Array:
    """For years DeepSeek-V3 ran with experts of forbidden groups."""
    return np.ones(w.biased.shape, dtype=bool)


@mutant("group-top-k-taken-for-experts", "M25", "expert_ids", real="vllm-project/vllm#49982")
def _(w: Work) -> Array:
    """A graph matcher took the first top-k that it met, the groups', for the router."""
    if w.config.groups is None or w.config.groups.count < w.config.top_k:
        return expert_ids(w)
    return table_or(w, lambda: top_k(w.group_scores, w.config.top_k))


@mutant("groups-ranked-without-bias", "M04", "group_scores", real="vllm-project/vllm#33858")
def _(w: Work) -> Array:
    """The bias reached the experts but not their groups."""
    return group_scores(w.redone(biased=lambda each: each.scores))


@mutant("bias-dropped-for-one-group", "M04", "selection_bias", real="vllm-project/vllm#33858")
def _(w: Work) -> Array | None:
    """n_group=1 was taken for no groups, which had no bias: gsm8k fell from 0.92 to 0.30."""
    groups = w.config.groups
    return None if groups and groups.count == 1 else w.inputs.selection_bias


@mutant("bfloat16-bias-in-groups", "M06", "biased", real="vllm-project/vllm#31781")
def _(w: Work) -> Array:
    """The grouped kernel cast a float32 bias to the dtype of its logits."""
    if w.selection_bias is None or w.config.groups is None:
        return biased(w)
    return w.scores + to_bfloat16(w.selection_bias)


@mutant("zero-group-fill", "M26", "competing", real="deepseek-ai/DeepSeek-V3#741")
def _(w: Work) -> Array:
    """Where a balancing bias made scores negative, the masked experts, at 0, won."""
    return filled(w, 0.0)


@mutant("excluded-times-zero", "M26", "competing", real="sgl-project/sglang#3705")
def _(w: Work) -> Array:
    """The mask was multiplied: excluded experts at 0, and NaN where they were infinite."""
    return w.biased * w.kept.astype(np.float32)


@mutant("fill-of-zero-in-16-bits", "M28", "competing", real="vllm-project/vllm#24886")
def _(w: Work) -> Array:
    """-inf became 0 for 16-bit types, and masked experts won."""
    return competing(w) if w.inputs.dtype == "float32" else filled(w, 0.0)


@mutant(
    "ragged-groups-mix-tokens",
    "M52",
    "config",
    "kept",
    real="huggingface/transformers 5.23.0, deepseek_v3",
)
def _(w: Work, stage: str) -> Any:
    """E not divisible by n_group reshaped across rows: other tokens chose a token's experts."""
    if stage == "config":
        return _with_any_groups(w)
    groups, experts = w.config.groups, w.config.num_experts
    if groups is None or experts % groups.count == 0:
        return kept(w)
    size = experts // groups.count
    blocks = w.biased.reshape(-1, groups.count, size)
    sums = np.sort(blocks, axis=2)[:, :, -groups.top :].sum(axis=2)
    mask = np.zeros(sums.shape, dtype=bool)
    np.put_along_axis(mask, top_k(sums, groups.kept), True, axis=1)
    return np.repeat(mask, size, axis=1).reshape(-1, experts)


def _with_any_groups(w: Work) -> RouterConfig:
    """Check the configuration, but not that its groups are of equal size."""
    groups = w.requested.groups
    if not isinstance(groups, Groups) or w.requested.num_experts % groups.count == 0:
        return config(w)
    requested: RouterConfig = w.requested
    RouterConfig(**{**vars(requested), "groups": None})
    return requested

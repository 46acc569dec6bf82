"""Mutants of the sizes: more experts, a K, a T that a kernel was not made for."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import (
    checked,
    competing,
    config,
    expert_ids,
    table_or,
)
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference import RouterConfig
from moe_routing.reference.selection import top_k


def without(w: Work, lost: Array) -> Array:
    """Select with the experts ``lost [E]`` never considered, as long as K are left."""
    if w.config.num_experts - lost.sum() < w.config.top_k:
        return expert_ids(w)
    values = np.where(lost, -np.inf, w.competing)
    order = np.where(np.isneginf(values) & ~lost, -1e38, values)  # lost even to masked ones
    return table_or(w, lambda: top_k(order, w.config.top_k))


def _first_only(most: int, real: str, harm: str) -> None:
    def ids(w: Work) -> Array:
        return without(w, np.arange(w.config.num_experts) >= most)

    ids.__doc__ = harm
    mutant(
        f"only-first-{most}-experts", "M35", "expert_ids", real=real, needs=f"{most + 1} experts"
    )(ids)


_first_only(32, "EfficientMoE/MoE-Infinity#75", "One block of 32 experts was searched.")
_first_only(256, "kekzl/imp#2056", "One expert a thread, 256 threads: the best one was never seen.")
_first_only(512, "ROCm/aiter@e99784470c", "A scan ended at 512: experts beyond were misplaced.")


@mutant("tail-of-eight-lost", "M36", "expert_ids", real="ROCm/aiter@a38189050b", needs="9 experts")
def _(w: Work) -> Array:
    """The experts behind the last whole vector of 8 never competed."""
    whole = w.config.num_experts // 8 * 8
    return without(w, np.arange(w.config.num_experts) >= (whole or w.config.num_experts))


@mutant("tail-of-power-of-two-lost", "M36", "expert_ids", real="ggml-org/llama.cpp#5213")
def _(w: Work) -> Array:
    """A sort for powers of two saw no expert beyond the last one."""
    whole = 1 << (w.config.num_experts.bit_length() - 1)
    return without(w, np.arange(w.config.num_experts) >= whole)


@mutant(
    "k-padded-to-power-of-two",
    "M36",
    "expert_ids",
    real="vllm-project/vllm#46406",
    needs="2 tokens, K=3",
)
def _(w: Work) -> Array:
    """Rows of K ids were written 8 apart and read 6 apart."""
    ids = expert_ids(w)
    width = 1 << (w.config.top_k - 1).bit_length()
    padded = np.zeros((len(ids), width), ids.dtype)
    padded[:, : w.config.top_k] = ids
    return padded.reshape(-1)[: ids.size].reshape(ids.shape)


@mutant(
    "row-stride-rounded-up-above-16-tokens",
    "M36",
    "competing",
    real="ROCm/aiter@b82dcd5143",
    needs="17 tokens",
)
def _(w: Work) -> Array:
    """Only long batches of E = 384 went to a kernel for powers of two."""
    values, experts = competing(w), w.config.num_experts
    width = 1 << (experts - 1).bit_length()
    if w.num_tokens <= 16 or width == experts:
        return values
    flat = np.resize(values.reshape(-1), w.num_tokens * width)
    return flat.reshape(-1, width)[:, :experts]


@mutant("last-choice-lost-at-k-equals-e", "M38", "expert_ids", real="ml-explore/mlx-lm@caee03c0")
def _(w: Work) -> Array:
    """A pivot one too far: with K = E the last choice was not there."""
    ids = np.array(expert_ids(w))
    if w.inputs.expert_table is None and w.config.top_k == w.config.num_experts > 1:
        ids[:, -1] = ids[:, 0]
    return ids


@mutant("k-hard-coded", "M38", "expert_ids", real="JieShibo/MoLE#7")
def _(w: Work) -> Array:
    """A 10 from an experiment stayed where K was due: results nobody could repeat."""
    return expert_ids(w)[:, : min(w.config.top_k, 2)]


@mutant("one-token-sees-two-experts", "M38", "expert_ids", real="1bit-MONSTER/1bit-MONSTER#1713")
def _(w: Work) -> Array:
    """The router for one token scored 2 slots, the one for batches 17."""
    return without(w, (np.arange(w.config.num_experts) >= 2) & (w.num_tokens == 1))


@mutant("k-above-e-clamped", "M38", "config", real="HKUSTDial/omni-moe#21")
def _(w: Work) -> RouterConfig:
    """A K that no model can have was answered with another one."""
    fewer = min(w.requested.top_k, w.requested.num_experts)
    w.requested = RouterConfig.unchecked(**{**vars(w.requested), "top_k": fewer})
    w.claims.require(w.requested, w.inputs)
    return checked(w)


@mutant(
    "k-above-kept-experts-answered",
    "M38",
    "config",
    real="huggingface/transformers 5.23.0, deepseek_v3",
)
def _(w: Work) -> RouterConfig:
    """With K above what the kept groups hold, experts of excluded groups ran with real weights."""
    requested: RouterConfig = w.requested
    groups, size, experts = requested.groups, requested.experts_per_group, requested.num_experts
    if not groups or not groups.kept * size < requested.top_k <= experts == groups.count * size:
        return config(w)
    w.claims.require(requested, w.inputs)
    RouterConfig(**{**vars(requested), "groups": None})
    return requested


@mutant(
    "ids-in-8-bits",
    "M44",
    "expert_ids",
    real="PrimeIntellect-ai/prime-rl#3051",
    needs="257 experts",
)
def _(w: Work) -> Array:
    """512 experts in a byte: servers answered 500, or another expert."""
    return (expert_ids(w) % 256).astype(np.uint8)


@mutant(
    "ids-wrap-at-256", "M44", "expert_ids", real="modelscope/ms-swift#9981", needs="257 experts"
)
def _(w: Work) -> Array:
    """Ids that had been through a byte came back in 64 bits, and wrong."""
    return expert_ids(w) % 256


@mutant("ids-wrap-at-512", "M44", "expert_ids", real="uccl-project/uccl#1021", needs="513 experts")
def _(w: Work) -> Array:
    """Nine bits of an immediate held the expert's id: E = 768 aborted."""
    return expert_ids(w) % 512


@mutant("rows-shift-unless-four-divides-t", "M41", "expert_ids", real="Dao-AILab/sonic-moe@c6ba863")
def _(w: Work) -> Array:
    """Where 4 did not divide T, counts stood for offsets, and tokens took each other's rows."""
    ids = expert_ids(w)
    return ids if w.num_tokens % 4 == 0 else np.roll(ids, 1, axis=0)


@mutant("blocks-of-256-repeat", "M41", "expert_ids", real="trymirai/uzu#715", needs="257 tokens")
def _(w: Work) -> Array:
    """One histogram for all blocks of 256 tokens: the rows of later blocks fell on the first."""
    return expert_ids(w)[np.arange(w.num_tokens) % 256]

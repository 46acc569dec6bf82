"""Mutants of tiers: another kernel for some numbers of tokens, and wrong there alone."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.mutants.logits import to_bfloat16
from moe_routing.conformance.zoo.mutants.sizes import without
from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import (
    biased,
    expert_ids,
    kept,
    logits,
    renormalized,
)
from moe_routing.conformance.zoo.router.work import Work


@mutant(
    "bias-lost-in-prefill",
    "M04",
    "biased",
    real="vllm-project/vllm#33858",
    needs="65 tokens, 256 experts",
)
def _(w: Work) -> Array:
    """Long batches of many experts went to a routing method without the selection bias."""
    return w.scores if w.num_tokens > 64 and w.config.num_experts >= 256 else biased(w)


@mutant(
    "bfloat16-logits-at-2048-tokens",
    "M10",
    "logits",
    real="sgl-project/sglang#30323",
    needs="2048 tokens",
)
def _(w: Work) -> Array:
    """The one shape that the fast path did not cover fell back to a gate in bfloat16."""
    z = logits(w)
    return to_bfloat16(z) if w.num_tokens == 2048 else z


@mutant(
    "bfloat16-logits-of-few-tokens-at-896",
    "M10",
    "logits",
    real="sgl-project/sglang#38719",
    needs="896 experts",
)
def _(w: Work) -> Array:
    """A gate for up to 16 tokens of 896 experts stored its logits in bfloat16."""
    z = logits(w)
    few = w.num_tokens <= 16 and w.config.num_experts == 896
    return to_bfloat16(z) if few else z


@mutant(
    "groups-ignored-from-512-tokens",
    "M25",
    "kept",
    real="ggml-org/llama.cpp#16691",
    needs="512 tokens, bfloat16",
)
def _(w: Work) -> Array:
    """Long batches in bfloat16 took a path that knew no groups."""
    if w.config.groups is None or w.inputs.dtype != "bfloat16" or w.num_tokens < 512:
        return kept(w)
    return np.ones(w.biased.shape, dtype=bool)


@mutant(
    "last-tile-repeats-the-one-before",
    "M41",
    "expert_ids",
    real="trymirai/uzu#715",
    needs="129 tokens",
)
def _(w: Work) -> Array:
    """Where tiles of 128 tokens did not fill the batch, the rest took the rows before them."""
    ids, whole = expert_ids(w), w.num_tokens // 128 * 128
    if whole in (0, w.num_tokens) or w.config.num_experts < 128:
        return ids
    rows = np.arange(w.num_tokens)
    return ids[np.where(rows < whole, rows, rows - 128)]


@mutant(
    "norm-lost-from-4096-tokens",
    "M16",
    "renormalized",
    real="vllm-project/vllm#31246",
    needs="4096 tokens, 128 experts",
)
def _(w: Work) -> Array:
    """The widest tier, written for one model, wrote its scores out as they were."""
    wide = w.num_tokens >= 4096 and w.config.num_experts >= 128
    return w.gathered if wide else renormalized(w)


@mutant(
    "rows-shift-at-8192-tokens",
    "M52",
    "expert_ids",
    real="Dao-AILab/sonic-moe@c6ba863",
    needs="8192 tokens, 256 experts",
)
def _(w: Work) -> Array:
    """At one size exactly, tokens took each other's rows."""
    ids = expert_ids(w)
    exactly = w.num_tokens == 8192 and w.config.num_experts == 256
    return np.roll(ids, 1, axis=0) if exactly else ids


@mutant(
    "last-expert-lost-above-64-tokens",
    "M35",
    "expert_ids",
    real="ROCm/aiter@e99784470c",
    needs="65 tokens, 384 experts",
)
def _(w: Work) -> Array:
    """A scan for long batches ended before the last of many experts."""
    lost = np.arange(w.config.num_experts) == w.config.num_experts - 1
    return without(w, lost) if w.num_tokens > 64 and len(lost) >= 384 else expert_ids(w)


@mutant(
    "offsets-in-15-bits",
    "M41",
    "expert_ids",
    real="vllm-project/vllm#12239",
    needs="32768 routes",
)
def _(w: Work) -> Array:
    """Offsets of routes were signed numbers of 16 bits: from 32,768 on, rows were others'."""
    ids = expert_ids(w)
    flat = ids.reshape(-1)
    wrapped: Array = flat[np.arange(flat.size) % 2**15].reshape(ids.shape)
    return wrapped

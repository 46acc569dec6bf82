"""Mutants of permutations: padding, tiles and buffers, too few bits, calls."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.mutants.permutation import permuter
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import overwrite
from moe_routing.conformance.zoo.router.permuter import (
    PERMUTING,
    PermuterWork,
    by_expert,
    placed,
    weighed,
)
from moe_routing.reference import AlignedBlocks
from moe_routing.reference.permutation import PADDING

# Padding, tiles and buffers.


@permuter("padding-left-0", "M48", "rows", real="NVIDIA/TransformerEngine#2026")
def _(w: PermuterWork) -> Array:
    """Padding rows were zeros, which is the number of a route."""
    return np.where(placed(w) == PADDING, 0, placed(w))


@permuter("padding-before-routes", "M55", "rows", real="NVIDIA/Megatron-LM#6086")
def _(w: PermuterWork) -> Array:
    """Padding came before the tokens of an expert, and was taken for them."""
    rows = placed(w)
    for start, end, count in zip(w.starts[:-1], w.starts[1:], w.counts, strict=True):
        rows[start:end] = np.roll(rows[start:end], end - start - count)
    return rows


@permuter("rows-past-the-last-block-lost", "M36", "rows", real="vllm-project/vllm#46406")
def _(w: PermuterWork) -> Array:
    """A range that had to be a power of two left the tail unwritten."""
    rows = placed(w)
    rows[rows.size - rows.size % 8 :] = PADDING
    return rows


@permuter("last-partial-block-lost", "M36", "sizes", real="NVIDIA/Megatron-LM@bc705358bc")
def _(w: PermuterWork) -> Array:
    """Rows were rounded down to whole blocks."""
    return w.counts // w.config.align * w.config.align


@permuter("not-aligned", "M36", "sizes", real="deepseek-ai/DeepGEMM#451")
def _(w: PermuterWork) -> Array:
    """The alignment was not applied: blocks reached into the next expert."""
    return np.where(w.counts == 0, w.config.empty_takes, w.counts)


@permuter("a-block-too-many", "M36", "sizes", real="ROCm/aiter#4482")
def _(w: PermuterWork) -> Array:
    """A count on a multiple of the alignment took one block more."""
    right = w.config.sizes(w.counts)
    made: Array = right + w.config.align * ((w.counts > 0) & (w.counts % w.config.align == 0))
    return made


@permuter("buffer-for-the-mean", "M36", "answer", real="flashinfer-ai/flashinfer#4238")
def _(w: PermuterWork) -> AlignedBlocks:
    """The buffer had room for half a block of padding an expert, not for nearly a whole one."""
    block = w.config.align
    room = -(-(w.routes.num_routes + w.experts * (block // 2)) // block) * block
    experts = np.repeat(np.arange(w.experts), w.sizes // block)
    return AlignedBlocks(rows=w.rows[:room], block_experts=experts, used=w.rows.size, block=block)


@permuter("last-tile-lost", "M36", "tile_experts", real="vllm-project/vllm#34991")
def _(w: PermuterWork) -> Array:
    """The tiles of an expert were rounded down: its last rows were never computed."""
    return np.repeat(np.arange(w.experts), w.counts // w.tile)


# Too few bits.


@permuter("routes-in-16-bits", "M44", "order", real="vllm-project/vllm#12239", needs="65537 routes")
def _(w: PermuterWork) -> Array:
    """Counters of 16 bits wrapped, and rows named other routes."""
    return by_expert(w).astype(np.uint16).astype(np.int64)


@permuter("experts-in-8-bits", "M44", "ids", real="modelscope/ms-swift#9981", needs="257 experts")
def _(w: PermuterWork) -> Array:
    """Ids were kept in a byte: experts above 255 were others."""
    ids = w.routes.experts
    return np.where(ids < 0, ids, ids & 0xFF)


@permuter(
    "tiles-of-experts-in-8-bits",
    "M44",
    "tile_experts",
    real="PrimeIntellect-ai/prime-rl#3051",
    needs="257 experts",
)
def _(w: PermuterWork) -> Array:
    """Tiles named their experts in a byte."""
    right: Array = PERMUTING["tile_experts"](w)
    return right & 0xFF


# Calls.


@permuter("stable-order-lost", "M34", "order", real="unslothai/unsloth-zoo#1258")
def _(w: PermuterWork) -> Array:
    """Places were handed out by atomic counters, in whatever order threads came."""
    order = by_expert(w)[::-1]
    return order[np.argsort(w.ids[order], kind="stable")]


@permuter("second-call-differs", "M34", "order", real="NVIDIA/Megatron-LM@f93a016509")
def _(w: PermuterWork) -> Array:
    """A histogram that is not deterministic put other routes into the last expert's rows."""
    calls = w.memory["calls"] = w.memory.get("calls", 0) + 1
    order = by_expert(w)
    return order if calls % 2 else order[: order.size - 1]


@permuter(
    "zero-tokens-leave-counts-unwritten",
    "M53",
    "reported_counts",
    real="tetherto/qvac-fabric-llm.cpp#260",
)
def _(w: PermuterWork) -> Array:
    """Nothing is started for no tokens, and a buffer of counts keeps what was in it."""
    return w.counts if w.routes.num_tokens else np.full(w.experts, 7)


@permuter("zero-tokens-take-a-row", "M53", "sizes", real="laekov/fastmoe#107")
def _(w: PermuterWork) -> Array:
    """An empty batch was made one of a row, so that a kernel could be started."""
    right = w.config.sizes(w.counts)
    none = w.routes.num_tokens == 0
    made: Array = right + w.config.align * (none & (np.arange(w.experts) == 0))
    return made


@permuter("sentinels-cleared-in-place", "M61", "ids", real="axolotl-ai-cloud/axolotl#3714")
def _(w: PermuterWork) -> Array:
    """Sentinels were replaced in the caller's own ids, which the backward pass read again."""
    ids = w.routes.experts.copy()
    overwrite(w.routes.expert_ids, np.maximum(w.routes.expert_ids, 0))
    return ids


@permuter("weights-cleared-in-place", "M61", "weights", real="NVIDIA/TransformerEngine#2547")
def _(w: PermuterWork) -> Array:
    """The caller's weights were overwritten once they had been moved."""
    moved = weighed(w)
    overwrite(w.routes.weights, np.zeros_like(w.routes.weights))
    return moved

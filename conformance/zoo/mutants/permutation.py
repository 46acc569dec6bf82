"""Mutants of permutations: absent routes, histograms, rows, too few bits, calls."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import overwrite
from moe_routing.conformance.zoo.router.permuter import (
    PERMUTING,
    PermuterWork,
    StagedPermuter,
    by_expert,
    histogram,
    placed,
    summed,
    weighed,
)
from moe_routing.reference import AlignedBlocks
from moe_routing.reference.permutation import PADDING

permuter = partial(mutant, makes=StagedPermuter)


# Absent routes.


@permuter("absent-wraps-to-the-last-expert", "M46", "ids", real="vllm-project/vllm#42034")
def _(w: PermuterWork) -> Array:
    """Indexed with -1, a map of experts gave the last one, which ran the padding."""
    return w.routes.experts % w.experts


@permuter("absent-to-the-first-expert", "M47", "ids", real="axolotl-ai-cloud/axolotl@45a17e925")
def _(w: PermuterWork) -> Array:
    """Sentinels were clamped to a real expert, which then ran them."""
    return np.maximum(w.routes.experts, 0)


@permuter("absent-sorts-first", "M46", "order", real="NVIDIA/TransformerEngine@b7323b1ec")
def _(w: PermuterWork) -> Array:
    """Sentinels sorted to the front while the map took them to be last: every row was shifted."""
    return np.argsort(w.ids, kind="stable")[: np.count_nonzero(w.ids >= 0)]


@permuter("absent-counted-last", "M47", "reported_counts", real="huggingface/transformers#48653")
def _(w: PermuterWork) -> Array:
    """A histogram without a bin for the sentinel counted it in the last one."""
    return histogram(np.where(w.ids < 0, w.experts - 1, w.ids), w.experts)


@permuter("absent-run-off-the-end", "M47", "rows", real="axolotl-ai-cloud/axolotl@9ef7de661")
def _(w: PermuterWork) -> Array:
    """Sentinel rows were kept behind the last segment, past what the offsets say."""
    return np.concatenate([placed(w), np.flatnonzero(w.ids < 0)])


@permuter("inverse-of-absent-is-0", "M46", "inverse", real="sgl-project/sglang#12701")
def _(w: PermuterWork) -> Array:
    """An invalid id was not filtered: its slot read the first row."""
    right: Array = PERMUTING["inverse"](w)
    return np.maximum(right, 0)


# Histograms and offsets.


@permuter(
    "counts-of-the-first-slot",
    "M42",
    "reported_counts",
    real="deepspeedai/DeepSpeed@5a2e705b8",
)
def _(w: PermuterWork) -> Array:
    """Counts ignored the second choice, and their sum was T in place of 2T."""
    return histogram(w.routes.expert_ids[:, 0], w.experts)


@permuter(
    "tail-lanes-counted",
    "M42",
    "reported_counts",
    real="ByteDance-Seed/Triton-distributed#181",
)
def _(w: PermuterWork) -> Array:
    """Loads past the end gave 0, and expert 0 counted them."""
    made: Array = w.counts + (np.arange(w.experts) == 0) * (-w.ids.size % 32)
    return made


@permuter("experts-wrap-in-blocks", "M42", "reported_counts", real="ModelTC/LightLLM#1369")
def _(w: PermuterWork) -> Array:
    """Experts were loaded in blocks of four, modulo E: some counted twice."""
    made: Array = w.counts * (1 + (np.arange(w.experts) < -w.experts % 4))
    return made


@permuter("ghost-token", "M42", "reported_counts", real="NVIDIA/TensorRT-LLM#14146")
def _(w: PermuterWork) -> Array:
    """The number left was tested after it was given out: an idle expert still had one token."""
    return np.maximum(w.counts, 1)


@permuter("counts-add-up", "M42", "reported_counts", real="ROCm/aiter#2381")
def _(w: PermuterWork) -> Array:
    """A workspace of an earlier call was counted on, not cleared."""
    before = w.memory.get(w.experts, 0)
    total: Array = w.counts + before
    w.memory[w.experts] = total
    return total


@permuter("counts-for-offsets", "M41", "starts", real="Dao-AILab/sonic-moe@c6ba863")
def _(w: PermuterWork) -> Array:
    """Where T was no multiple of four, counts stood in the place of offsets."""
    right = summed(w.sizes)
    return np.concatenate([[0], w.sizes]) if w.routes.num_tokens % 4 else right


@permuter("histogram-of-each-block", "M41", "rows", real="trymirai/uzu#715", needs="257 routes")
def _(w: PermuterWork) -> Array:
    """Places were counted anew for every 256 routes: later ones fell on earlier ones."""
    experts = w.ids[w.order]
    keys = w.order // 256 * w.experts + experts
    within = np.zeros(experts.size, np.int64)
    ranked = np.argsort(keys, kind="stable")
    ordered = keys[ranked]
    within[ranked] = np.arange(ordered.size) - np.searchsorted(ordered, ordered)
    rows = np.full(int(w.starts[-1]), PADDING)
    rows[w.starts[experts] + within] = w.order
    return rows


@permuter(
    "scan-of-256-experts",
    "M35",
    "reported_counts",
    real="ROCm/aiter@e99784470c",
    needs="257 experts",
)
def _(w: PermuterWork) -> Array:
    """The scan was one block wide: experts past it had no tokens."""
    return np.where(np.arange(w.experts) < 256, w.counts, 0)


@permuter("offsets-start-at-1", "M41", "starts", real="sgl-project/sglang#38780")
def _(w: PermuterWork) -> Array:
    """Every offset was one too large: the first row was skipped."""
    return summed(w.sizes) + 1


# Rows and what follows from them.


@permuter("routes-slot-major", "M52", "order", real="unslothai/unsloth#3953")
def _(w: PermuterWork) -> Array:
    """Indices were not built from the flattened slots: slots of other tokens were run."""
    tokens, top_k = w.routes.expert_ids.shape
    right = by_expert(w)
    made: Array = right % top_k * tokens + right // top_k
    return made


@permuter("inverse-is-the-order", "M52", "inverse", real="NVIDIA/Megatron-LM@9bbb40dd65")
def _(w: PermuterWork) -> Array:
    """The wrong one of two variables was kept: the map led from rows to routes, not back."""
    return np.resize(np.append(w.rows, PADDING), w.routes.num_routes)


@permuter("gather-by-route", "M52", "gather", real="unslothai/unsloth#3812")
def _(w: PermuterWork) -> Array:
    """Routes were taken for tokens: with K above 1 the gather read other tokens."""
    return w.rows.copy()


@permuter("gather-by-slot", "M52", "gather", real="NVIDIA/Megatron-LM@a98c5ba19c")
def _(w: PermuterWork) -> Array:
    """Ids were read as if K were 1."""
    return np.where(w.rows < 0, PADDING, w.rows % max(1, w.routes.num_tokens))


@permuter("weights-left-in-place", "M52", "weights", real="huggingface/transformers#40609")
def _(w: PermuterWork) -> Array:
    """Scores were not transposed before they were applied to the permuted rows."""
    flat = np.append(w.routes.weights.reshape(-1), np.float32(0))
    return np.resize(flat, w.rows.size)


@permuter("weights-of-the-first-slot", "M52", "weights", real="NVIDIA/Megatron-LM@254c87400f")
def _(w: PermuterWork) -> Array:
    """For K above 1 a row got the weight of its token's first slot."""
    first = np.repeat(w.routes.weights[:, 0], w.routes.top_k)
    return np.append(first, np.float32(0))[np.where(w.rows < 0, -1, w.rows)]


@permuter(
    "weights-permuted-in-bfloat16", "M13", "weights", real="flashinfer-ai/flashinfer@71a10aff9"
)
def _(w: PermuterWork) -> Array:
    """Weights went through bfloat16 on their way into a float32 buffer."""
    bits = weighed(w).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


@permuter("repeated-expert-run-once", "M52", "order", real="NVIDIA/Megatron-LM#6086")
def _(w: PermuterWork) -> Array:
    """A map of tokens and experts has one place for an expert that holds two slots of a token."""
    order = by_expert(w)
    keys = w.ids[order] * max(1, w.routes.num_tokens) + order // w.routes.top_k
    return order[np.sort(np.unique(keys, return_index=True)[1])]


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

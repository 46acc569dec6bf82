"""Mutants of permutations: absent routes, histograms, rows, too few bits, calls."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
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

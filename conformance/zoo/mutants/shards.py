"""Mutants of shards: offsets, remainders, maps, replicas, sentinels, buffers, sums."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.sharder import SharderWork, StagedSharder, numbered

sharder = partial(mutant, makes=StagedSharder)


def _in_order(w: SharderWork) -> Array:
    """Return the experts of the rank's block, had all ranks as many, in order."""
    each = -(-w.config.num_experts // w.ranks)
    return np.arange(w.rank * each, min((w.rank + 1) * each, w.config.num_experts))


# Offsets and remainders.


@sharder("offset-not-subtracted", "M49", "ids", real="NVIDIA/TensorRT-LLM#14146")
def _(w: SharderWork) -> Array:
    """Ids over all ranks were compared with local ones."""
    ids = w.inputs.expert_ids
    return np.where(ids < len(w.held), ids, -1)


@sharder("remainder-lost", "M49", "ids", real="PTO-ISA/SuperNPUBench#74")
def _(w: SharderWork) -> Array:
    """Experts were divided among ranks without the remainder, whose experts nobody ran."""
    least = w.config.num_experts // w.ranks
    return np.where(w.right("ids") < max(least, 1), w.right("ids"), -1)


@sharder("as-many-ranks-as-experts", "M49", "ids", real="deepspeedai/DeepSpeed#7551")
def _(w: SharderWork) -> Array:
    """The number of experts was taken for the number of ranks: one expert each."""
    return np.where(w.right("ids") < 1, w.right("ids"), -1)


@sharder("reduced-once-more", "M49", "answer", real="vllm-project/vllm-ascend#6710")
def _(w: SharderWork) -> Array:
    """The output was reduced once more by whoever called the layer."""
    return w.part * np.float32(w.ranks)


@sharder("rank-buffer-for-an-even-load", "M49", "ids", real="flashinfer-ai/flashinfer#4637")
def _(w: SharderWork) -> Array:
    """A rank's buffer had room for twice its even share, and a skewed load did not fit."""
    ids: Array = w.right("ids").copy()
    room = 2 * -(-ids.size // w.ranks)
    if w.ranks > 2:
        ids.reshape(-1)[np.flatnonzero(ids.reshape(-1) >= 0)[room:]] = -1
    return ids


# Maps.


@sharder("map-not-applied", "M75", "number", real="sgl-project/sglang#36861")
def _(w: SharderWork) -> Array:
    """The map of experts to places was never applied: they were taken to lie in order."""
    first = np.concatenate([[0], np.cumsum(np.bincount(w.placement.rank_of, minlength=w.ranks))])
    held = np.arange(first[w.rank], min(first[w.rank + 1], w.config.num_experts))
    return numbered(held, w.config.num_experts)


@sharder("map-applied-twice", "M75", "number", real="sgl-project/sglang#25285")
def _(w: SharderWork) -> Array:
    """An id that had been mapped to its place was mapped again."""
    places = np.argsort(w.placement.logical_of, kind="stable")[: w.config.num_experts]
    right: Array = w.right("number")
    twice = np.where(places < w.config.num_experts, places, 0)
    return np.append(right[twice], -1)


@sharder("experts-sorted-and-matrices-not", "M75", "number", real="vllm-project/vllm-ascend#8501")
def _(w: SharderWork) -> Array:
    """Local ids went by the order of experts, and their matrices lay in that of places."""
    return numbered(np.sort(w.held), w.config.num_experts)


@sharder("replicas-all-compute", "M75", "turn", real="deepseek-ai/EPLB#22")
def _(w: SharderWork) -> Array:
    """Every replica of an expert ran all of its tokens."""
    return np.ones(w.inputs.expert_ids.shape, bool)


@sharder("replicas-take-turns-by-rank", "M75", "turn", real="vllm-project/vllm-ascend#5311")
def _(w: SharderWork) -> Array:
    """Ranks counted the turns of replicas each in its own way: some tokens had none."""
    ids = w.inputs.expert_ids
    many = w.placement.replicas[ids]
    turn: Array = (np.arange(len(ids))[:, None] + w.rank) % many == 0
    return np.asarray(turn | (many == 1))


# Sentinels.


@sharder("absent-on-the-last-rank", "M46", "ids", real="vllm-project/vllm#46408")
def _(w: SharderWork) -> Array:
    """A map of experts was read at -1, which is its last entry."""
    number = w.number[:-1]
    turn = w.turn | (w.inputs.expert_ids < 0)
    return np.where(turn, number[w.inputs.expert_ids], -1)


@sharder("elsewhere-runs-the-first-expert", "M47", "ids", real="axolotl-ai-cloud/axolotl@45a17e925")
def _(w: SharderWork) -> Array:
    """What other ranks have became the first local expert, and kept its weight."""
    return np.where(w.inputs.expert_ids < 0, -1, np.maximum(w.right("ids"), 0))


@sharder("lone-expert-takes-all", "M47", "ids", real="huggingface/transformers 5.23.0, grouped_mm")
def _(w: SharderWork) -> Array:
    """With one local expert the histogram took the range of the data, sentinels included."""
    right: Array = w.right("ids")
    return np.where(w.inputs.expert_ids < 0, -1, 0) if len(w.held) == 1 else right


# Rows and sums.


@sharder("rows-of-other-ranks-not-cleared", "M48", "part", real="vllm-project/vllm#54083")
def _(w: SharderWork) -> Array:
    """The sum over slots read rows that nothing had written for experts elsewhere."""
    right: Array = w.right("part")
    stale = _kept(w, right)
    return (
        right if stale is None else np.where((w.ids < 0).all(axis=1, keepdims=True), stale, right)
    )


def _kept(w: SharderWork, answer: Array) -> Array | None:
    """Keep an answer, and return the one before, if it is of the same shape."""
    last: Array | None = w.memory.get("kept")
    w.memory["kept"] = answer
    return last if last is not None and last.shape == answer.shape else None


@sharder("idle-rank-answers-its-last-call", "M48", "answer", real="NVIDIA/Megatron-LM#3626")
def _(w: SharderWork) -> Array:
    """A rank none of whose experts had a token skipped the work, and its buffer stayed."""
    last = _kept(w, w.part)
    return w.part if last is None or (w.ids >= 0).any() else last


@sharder("no-token-is-refused", "M53", "answer", real="vllm-project/vllm#33379")
def _(w: SharderWork) -> Array:
    """A batch without tokens was reshaped to one row."""
    return w.part if w.inputs.num_tokens else np.zeros((1, w.inputs.hidden_size), np.float32)


@sharder("bias-on-every-rank", "M63", "part", real="pytorch/torchtitan#4245")
def _(w: SharderWork) -> Array:
    """Each rank added a bias to all of its tokens before they were summed."""
    right: Array = w.right("part")
    bias = w.matrices.get("down_bias")
    if bias is None or not len(bias):
        return right
    busy: Any = (w.inputs.expert_ids >= 0).any(axis=1, keepdims=True)
    return np.asarray(right + busy * bias[0])


@sharder("last-token-of-a-rank-lost", "M41", "ids", real="deepseek-ai/DeepEP#241")
def _(w: SharderWork) -> Array:
    """A count was taken for an offset: the last of a rank's tokens was never sent."""
    ids: Array = w.right("ids").copy()
    places = np.flatnonzero(ids.reshape(-1) >= 0)
    if places.size > 4:
        ids.reshape(-1)[places[-1]] = -1
    return ids

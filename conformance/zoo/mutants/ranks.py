"""Mutants of ranks that run at once: offsets, remainders, idle ranks, sums, gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.ranks import RanksWork, StagedRanks
from moe_routing.conformance.zoo.router.sharder import numbered

ranks = partial(mutant, makes=StagedRanks)

_MEGATRON = "NVIDIA/Megatron-LM#3626"


# Where tokens go.


@ranks("offset-not-subtracted-on-ranks", "M49", "number", real="vllm-project/vllm-gaudi#1796")
def _(w: RanksWork) -> list[Array]:
    """Ids over all ranks were taken for local ones: those past the first rank's ran nothing."""
    held = [w.placement.local(rank) for rank in w.ranks]
    experts = w.call.config.num_experts
    return [numbered(np.arange(min(each.size, experts)), experts) for each in held]


@ranks("last-rank-without-its-remainder", "M49", "target", real="PTO-ISA/SuperNPUBench#74")
def _(w: RanksWork) -> Array:
    """Experts were divided by the ranks, rounded down: those left over had no rank."""
    target: Array = w.right("target")
    least = max(w.call.config.num_experts // len(w.ranks), 1)
    place = np.stack([each[w.ids] for each in w.number])
    over = np.take_along_axis(place, np.maximum(target, 0)[None], axis=0)[0] >= least
    return np.where(over, -1, target)


@ranks("rank-of-an-expert-by-division", "M75", "target", real="sgl-project/sglang#36861")
def _(w: RanksWork) -> Array:
    """The rank of an expert was its number divided by those of a rank, whatever the map said."""
    each = -(-w.call.config.num_experts // len(w.ranks))
    return np.where(w.ids < 0, -1, w.ids // each)


@ranks("sent-to-every-replica", "M75", "parts", real="deepseek-ai/EPLB#22")
def _(w: RanksWork) -> list[Array]:
    """Every rank that had the expert answered, and all answers were added."""
    parts = list(w.right("parts"))
    copies = np.where(w.ids < 0, 1, w.placement.replicas[w.ids]).max(axis=1, initial=1)
    return [part * copies[:, None].astype(np.float32) for part in parts]


@ranks("absent-goes-to-the-last-rank", "M46", "target", "number", real="vllm-project/vllm#46408")
def _(w: RanksWork, stage: str) -> Array | list[Array]:
    """The rank of a sentinel was looked up in the map, at its end, and so was its expert."""
    if stage == "target":
        return np.asarray(np.where(w.ids < 0, w.placement.rank_of[-1], w.right("target")))
    return [np.append(each[:-1], each[-2]) for each in w.right("number")]


# Batches.


@ranks("rows-of-a-rank-by-its-own-length", "M49", "answer", real="pytorch/torchtitan#3604")
def _(w: RanksWork) -> list[Array]:
    """A token's row among all was its row here plus rank times length, as if all had as many."""
    found = []
    for rank, batch in enumerate(w.call.batches):
        rows = rank * batch.num_tokens + np.arange(batch.num_tokens)
        found.append(w.summed[np.minimum(rows, len(w.home) - 1)])
    return found


@ranks("idle-rank-stays-away", "M53", "parts", real="sgl-project/sgl-kernel-npu#735")
def _(w: RanksWork) -> list[Array]:
    """A check wanted tokens on every rank: one without any left out what others had sent it."""
    idle = [not each.num_tokens for each in w.call.batches]
    parts = w.right("parts")
    return [part * np.float32(not gone) for part, gone in zip(parts, idle, strict=True)]


@ranks("token-of-an-idle-rank-lost", "M41", "parts", real="deepseek-ai/DeepEP#241")
def _(w: RanksWork) -> list[Array]:
    """Counts were taken for offsets where a rank sent nothing: the last token to it was lost."""
    parts = [part.copy() for part in w.right("parts")]
    for rank in w.ranks:
        sent = np.flatnonzero((w.target == rank).any(axis=1))
        if sent.size and not w.call.batches[rank].num_tokens:
            parts[rank][sent[-1]] = 0
    return parts


@ranks("buffer-for-an-even-load-on-ranks", "M49", "target", real="flashinfer-ai/flashinfer#4637")
def _(w: RanksWork) -> Array:
    """A rank had room for twice its share of all routes, and a skewed load did not fit."""
    target: Array = w.right("target").copy()
    room = max(2 * -(-target.size // len(w.ranks)) - 2, 1)
    for rank in w.ranks:
        target.reshape(-1)[np.flatnonzero(target.reshape(-1) == rank)[room:]] = -1
    return target


@ranks("no-batch-is-a-row", "M53", "answer", real="vllm-project/vllm#33379")
def _(w: RanksWork) -> list[Array]:
    """Where nobody had tokens, each rank made up one, so that the collective had something."""
    right: list[Array] = w.right("answer")
    return right if len(w.home) else [np.zeros((1, w.hidden.shape[1]), np.float32) for _ in right]


# Sums and order.


@ranks("all-reduced-once-more", "M49", "summed", real="vllm-project/vllm-ascend#6710")
def _(w: RanksWork) -> Array:
    """The output that ranks had combined was all-reduced once more."""
    return np.asarray(w.right("summed") * np.float32(len(w.ranks)))


@ranks("answers-in-the-order-of-ranks", "M41", "summed", real="NVIDIA/Megatron-LM@54d4b3ddbb")
def _(w: RanksWork) -> Array:
    """Rows came back sorted by other counts: tokens had the answers of their neighbours."""
    right: Array = w.right("summed").copy()
    for rank in w.ranks:
        own = w.own(rank)
        right[own] = right[own[np.argsort(w.target[own, 0], kind="stable")]]
    return right


# Gradients.


@ranks("rank-without-own-routes-skips-its-backward", "M86", "of_experts", real=_MEGATRON)
def _(w: RanksWork) -> list[Mapping[str, Array]]:
    """A rank none of whose tokens was for its experts left their parameters out of the backward."""
    right: Sequence[Mapping[str, Array]] = w.right("of_experts")
    away = [not (w.target[w.own(rank)] == rank).any() for rank in w.ranks]
    return [
        {name: array * np.float32(not gone) for name, array in each.items()}
        for each, gone in zip(right, away, strict=True)
    ]


@ranks("weights-gathered-without-a-graph", "M86", "of_tokens", real="NVIDIA/Megatron-LM@b6ce193888")
def _(w: RanksWork) -> dict[str, Array]:
    """Routing weights went to other ranks in an operation that autograd does not know."""
    right: dict[str, Array] = dict(w.right("of_tokens"))
    away = (w.target != w.home[:, None]) & (w.home >= 0)[:, None]
    right["weights"] = np.where(away, np.float32(0), right["weights"])
    return right


@ranks(
    "part-of-a-gradient-for-the-whole", "M86", "of_tokens", real="huggingface/transformers#48205"
)
def _(w: RanksWork) -> dict[str, Array]:
    """A rank's part of a gradient was taken for all of it: the parts of others were not added."""
    right: dict[str, Array] = dict(w.right("of_tokens"))
    homes = np.maximum(w.home, 0)
    parts = np.stack([each.hidden for each in w.learned])
    right["hidden"] = parts[homes, np.arange(len(homes))]
    return right


@ranks("expert-gradients-once-a-rank", "M86", "of_experts", real="NVIDIA/Megatron-LM#5956")
def _(w: RanksWork) -> list[Mapping[str, Array]]:
    """Experts' gradients held the tokens of all ranks, and were added up over ranks once more."""
    times = np.float32(len(w.ranks))
    return [{n: array * times for n, array in each.items()} for each in w.right("of_experts")]


@ranks("token-gradients-reduced-twice", "M86", "of_tokens", real="vllm-project/vllm-ascend#6710")
def _(w: RanksWork) -> dict[str, Array]:
    """What had been combined was all-reduced once more, in the backward pass as in the forward."""
    right: Mapping[str, Array] = w.right("of_tokens")
    return {name: array * np.float32(len(w.ranks)) for name, array in right.items()}

"""Mutants of the layout."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.layouts import flat, routing_map
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import FlatRouting, RoutingMap
from moe_routing.reference import Routing


@mutant("tuple-swapped", "M52", "answer", real="xberg-io/xberg#1211")
def _(w: Work) -> Routing:
    """(ids, weights) were unpacked as (weights, ids)."""
    return Routing(weights=w.expert_ids, expert_ids=w.weights)


@mutant("rows-padded-to-eight", "M55", "answer", real="vllm-project/vllm#48979")
def _(w: Work) -> Routing:
    """Rows that pad the batch were routed, and returned."""
    more = ((0, -w.num_tokens % 8), (0, 0))
    return Routing(weights=np.pad(w.weights, more), expert_ids=np.pad(w.expert_ids, more))


@mutant(
    "tail-rows-left-unwritten", "M55", "answer", real="vllm-project/vllm#48979", needs="9 tokens"
)
def _(w: Work) -> Routing:
    """The rows behind the last whole block of 8 kept what the buffer held."""
    whole = w.num_tokens // 8 * 8 or w.num_tokens
    live = np.arange(w.num_tokens)[:, None] < whole
    return Routing(weights=w.weights * live, expert_ids=w.expert_ids * live)


@mutant("ids-transposed-view", "M40", "answer", real="PrimeIntellect-ai/prime-rl#2860")
def _(w: Work) -> Routing:
    """Ids laid out [K, T] were handed on as a view, and read as [T, K]."""
    return Routing(weights=w.weights, expert_ids=np.asfortranarray(w.expert_ids))


@mutant(
    "one-token-indices-expanded",
    "M40",
    "answer",
    real="axolotl-ai-cloud/axolotl 0.16.1, sonicmoe",
)
def _(w: Work) -> FlatRouting:
    """For one token a reshape is a view: by its pointer, a kernel read past the one number."""
    if w.num_tokens != 1:
        return flat(w)
    return flat(w, token_indices=np.broadcast_to(np.zeros(1, np.int32), w.config.top_k))


@mutant("flat-tokens-by-e", "M52", "answer", real="NVIDIA/Megatron-LM@254c87400f")
def _(w: Work) -> FlatRouting:
    """Right for K = 1 only: tokens were counted as if each had one route."""
    right = flat(w)
    tokens = np.arange(len(right.token_indices)) % max(1, w.num_tokens)
    return flat(w, token_indices=tokens.astype(np.int32))


@mutant("flat-slot-major", "M52", "answer", real="huggingface/transformers#33463")
def _(w: Work) -> FlatRouting:
    """First all first choices, then all second ones: transposed where it was reshaped."""
    order = np.arange(w.expert_ids.size).reshape(w.expert_ids.shape).T.reshape(-1)
    right = flat(w)
    return flat(
        w,
        scores=right.scores[order],
        token_indices=right.token_indices[order],
        expert_indices=right.expert_indices[order],
    )


@mutant("flat-scores-sorted-apart", "M52", "answer", real="vcruz305/vllm-exl3#2")
def _(w: Work) -> FlatRouting:
    """Scores and experts were flattened in different orders."""
    return flat(w, scores=np.ascontiguousarray(w.weights[:, ::-1]).reshape(-1))


@mutant("flat-ids-in-64-bits", "M44", "answer", real="PrimeIntellect-ai/prime-rl#2487")
def _(w: Work) -> FlatRouting:
    """A kernel that reads 32-bit ids got 64-bit ones: every second id was 0."""
    return flat(w, expert_indices=w.expert_ids.reshape(-1).astype(np.int64))


@mutant("map-padded-with-experts", "M55", "answer", real="NVIDIA/Megatron-LM#6086")
def _(w: Work) -> RoutingMap:
    """Padding the counts to a multiple marked experts that no token had chosen."""
    right = routing_map(w)
    marked = np.array(right.routing_map)
    marked[:1] |= w.num_tokens % 4 != 0
    return routing_map(w, routing_map=marked)


@mutant("map-keeps-all-probabilities", "M52", "answer", real="huggingface/transformers#40609")
def _(w: Work) -> RoutingMap:
    """Scores off the route stayed in the dense tensor, and were summed with the rest."""
    right = routing_map(w)
    return routing_map(w, probs=np.where(right.routing_map, right.probs, w.scores))


@mutant(
    "map-of-another-token", "M52", "answer", real="NVIDIA/Megatron-LM@9bbb40dd65", needs="2 tokens"
)
def _(w: Work) -> RoutingMap:
    """The wrong one of two variables was overwritten: the map of one row, the probabilities
    of another.
    """
    right = routing_map(w)
    return routing_map(w, routing_map=np.roll(right.routing_map, 1, axis=0))

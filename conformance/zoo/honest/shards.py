"""Honest variants of shards: sentinels, splits of replicas, precision, orders of experts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.runner import RunnerWork
from moe_routing.conformance.zoo.router.sharder import SharderWork, StagedSharder, numbered
from moe_routing.implementations import Capabilities
from moe_routing.implementations.shards import Shards
from moe_routing.reference import shard

sharder = partial(honest, makes=StagedSharder)


@sharder("shard-plainly", "answer")
def _(w: SharderWork) -> Array:
    """Routes of other ranks are absent: the usual form."""
    return w.part


@sharder("shard-in-float64", "part")
def _(w: SharderWork) -> Array:
    """More precision than is due."""
    return shard(w.config, w.inputs, w.placement, w.rank)


@sharder("shard-with-experts-in-another-order", "held")
def _(w: SharderWork) -> Array:
    """In which order a rank holds its experts is its own."""
    held: Array = w.right("held")
    return held[::-1]


@sharder("shard-with-a-sentinel-expert", "part")
def _(w: SharderWork) -> Array:
    """Routes of other ranks go to one more expert, of zeros, with a weight of 0."""
    if not len(w.held):
        return np.zeros(w.inputs.hidden.shape, np.float32)
    ids = np.where((w.ids < 0) & (w.inputs.expert_ids >= 0), len(w.held), w.ids)
    weights = np.where(w.ids < 0, np.float32(0), w.inputs.weights)
    zeros: dict[str, Any] = {
        n: np.concatenate([e, np.zeros_like(e[:1])]) for n, e in w.matrices.items()
    }
    local = replace(w.inputs, expert_ids=ids, weights=weights, **zeros)
    config = replace(w.config, num_experts=len(w.held) + 1)
    found: Array = RunnerWork({}, config, local, {}).answer
    return found


@sharder("shard-replicas-by-slot", "turn")
def _(w: SharderWork) -> Array:
    """Which of an expert's replicas runs a route is free: here they go by the route's number."""
    return _turns(w, np.arange(w.inputs.expert_ids.size).reshape(w.inputs.expert_ids.shape))


@sharder("shard-replicas-first-alone", "turn")
def _(w: SharderWork) -> Array:
    """The first replica may run everything."""
    return _turns(w, np.zeros(w.inputs.expert_ids.shape, np.int64))


def _turns(w: SharderWork, counted: Array) -> Array:
    ids, turn = w.inputs.expert_ids, np.zeros(w.inputs.expert_ids.shape, bool)
    for expert in np.unique(ids[ids >= 0]):
        homes = w.placement.rank_of[w.placement.logical_of == expert]
        there = ids == expert
        turn[there] = homes[counted[there] % homes.size] == w.rank
    return turn


@sharder(
    "shard-even-blocks-alone",
    "number",
    claims=Capabilities(shards=Shards(placements="even", replicas=False)),
)
def _(w: SharderWork) -> Array:
    """A backend that has only even blocks subtracts the first of its own."""
    each = w.config.num_experts // w.ranks
    return numbered(np.arange(w.rank * each, (w.rank + 1) * each), w.config.num_experts)

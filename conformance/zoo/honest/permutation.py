"""Honest variants of permutations: layouts, orders, alignments, dtypes, poison where none reads."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.permuter import (
    PermuterWork,
    StagedPermuter,
    by_expert,
    inverted,
    sorted_routes,
)
from moe_routing.implementations import Capabilities, Permutes
from moe_routing.reference import AlignedBlocks, RowOfRoute, SortedRoutes, SortedTokens
from moe_routing.reference.permutation import PADDING


def _claims(**axes: Any) -> Capabilities:
    return Capabilities(permutes=Permutes(**axes))


permuter = partial(honest, makes=StagedPermuter)
UNPADDED = _claims(align=(1,), empty_takes=("nothing",))
FREE = _claims(order=("free",))


@permuter("permuted-plain", "answer")
def _(w: PermuterWork) -> SortedRoutes:
    """Sorted routes with exclusive offsets, and all that follows from them."""
    return sorted_routes(w)


@permuter("permuted-inclusive-in-int32", "answer")
def _(w: PermuterWork) -> SortedRoutes:
    """Inclusive offsets, the inverse flat, and all integers in 32 bits, are a layout as well."""
    right = sorted_routes(w)
    short = {
        name: each.astype(np.int32) if each.dtype.kind == "i" else each
        for name, each in vars(right).items()
        if isinstance(each, np.ndarray)
    }
    whole: dict[str, Any] = {**vars(right), **short, "starts": None, "inverse": w.inverse}
    return SortedRoutes(**{**whole, "ends": w.starts[1:].astype(np.int32)})


@permuter("permuted-by-counts-alone", "answer", claims=UNPADDED)
def _(w: PermuterWork) -> SortedRoutes:
    """Where nothing is padded, counts say where segments lie."""
    return SortedRoutes(routes=w.rows, counts=w.counts.astype(np.int32))


@permuter("permuted-tokens", "answer", claims=UNPADDED)
def _(w: PermuterWork) -> SortedTokens:
    """Tokens by expert, with counts: a token and an expert name a route."""
    return SortedTokens(tokens=w.gather, counts=w.counts, weights=w.weights)


@permuter("permuted-blocks", "answer")
def _(w: PermuterWork) -> AlignedBlocks:
    """Blocks, padded with T * K, in a buffer for the worst case with anything in its tail."""
    number, block = w.routes.num_routes, w.config.align
    room = -(-(number + w.experts * block) // block) * block
    rows = np.full(room, 3, np.int32)
    rows[: w.rows.size] = np.where(w.rows == PADDING, number, w.rows)
    experts = np.full(room // block, -7, np.int32)
    experts[: w.rows.size // block] = np.repeat(np.arange(w.experts), w.sizes // block)
    used = np.array([w.rows.size], np.int32)
    weights = np.full(room, np.nan, np.float32)
    weights[: w.rows.size] = w.weights
    return AlignedBlocks(
        rows=rows, block_experts=experts, used=used, block=block, padding=number, weights=weights
    )


@permuter("permuted-row-of-route", "answer")
def _(w: PermuterWork) -> RowOfRoute:
    """The row of every route, with the segments that they lie in."""
    rows = w.inverse.reshape(w.routes.expert_ids.shape)
    return RowOfRoute(row_of_route=rows, starts=w.starts, gather=w.gather, weights=w.weights)


@permuter("permuted-row-of-route-in-tiles", "answer")
def _(w: PermuterWork) -> RowOfRoute:
    """The row of every route, with tiles; past the tiles in use, anything."""
    block = w.config.align
    experts = np.append(np.repeat(np.arange(w.experts), w.sizes // block), [-9, 99]).astype(
        np.int32
    )
    return RowOfRoute(
        row_of_route=w.inverse.reshape(w.routes.expert_ids.shape).astype(np.int32),
        tile_experts=experts.astype(np.int32),
        used_tiles=np.array(experts.size - 2),
        tile=block,
        counts=w.counts,
    )


@permuter("permuted-backwards", "order", claims=FREE)
def _(w: PermuterWork) -> Array:
    """In a free order the last route of an expert may come first."""
    order = by_expert(w)[::-1]
    return order[np.argsort(w.ids[order], kind="stable")]


@permuter("permuted-by-a-hash", "order", claims=FREE)
def _(w: PermuterWork) -> Array:
    """A free order may be any that follows from the call."""
    return _mixed(w, zlib.crc32(w.ids.tobytes()))


@permuter("permuted-anew", "order", claims=FREE)
def _(w: PermuterWork) -> Array:
    """A free order may change from call to call, as that of atomic counters does."""
    calls = w.memory["calls"] = w.memory.get("calls", 0) + 1
    return _mixed(w, calls)


def _mixed(w: PermuterWork, seed: int) -> Array:
    order = by_expert(w)
    keys = np.random.default_rng(seed).random(order.size)
    return order[np.lexsort((keys, w.ids[order]))]


@permuter("permuted-backwards-in-blocks", "order", "answer", claims=FREE)
def _(w: PermuterWork, stage: str) -> Any:
    """A free order in blocks, as vLLM's kernel gives it."""
    if stage == "order":
        return _mixed(w, 7)
    experts = np.repeat(np.arange(w.experts), w.sizes // w.config.align)
    return AlignedBlocks(rows=w.rows, block_experts=experts, used=w.rows.size, block=w.config.align)


@permuter("permuted-in-blocks-of-128", "answer", claims=_claims(align=(128,), max_experts=60))
def _(w: PermuterWork) -> SortedRoutes:
    """A kernel may know one alignment alone."""
    return sorted_routes(w)


@permuter("permuted-with-a-block-each", "answer", claims=_claims(empty_takes=("align",)))
def _(w: PermuterWork) -> SortedRoutes:
    """An empty expert may take a block, where that is what is claimed."""
    return sorted_routes(w)


@permuter("permuted-padding-unread", "gather", "weights", "inverse")
def _(w: PermuterWork, stage: str) -> Array:
    """What a padding row gathers and weighs is not read, nor where an absent route points to."""
    if stage == "inverse":
        right = inverted(w)
        return np.where(right < 0, w.rows.size + 5, right)
    held = w.rows != PADDING
    flat = np.append(w.routes.weights.reshape(-1), np.float32(0))
    if stage == "weights":
        return np.where(held, flat[w.rows], np.float32(np.nan))
    return np.where(held, w.rows // w.routes.top_k, 0)


@permuter(
    "permuted-no-absent-no-repeats", "answer", claims=_claims(absent=(False,), repeats=(False,))
)
def _(w: PermuterWork) -> SortedRoutes:
    """A library may take nothing but K distinct experts a token."""
    return sorted_routes(w)


@permuter("permuted-in-low-tiles", "tile_experts", "answer")
def _(w: PermuterWork, stage: str) -> Any:
    """Tiles need not be as high as the alignment."""
    if stage == "tile_experts":
        return np.repeat(np.arange(w.experts), -(-np.diff(w.starts) // 2))
    return replace(sorted_routes(w), tile=2)


@permuter("permuted-weights-in-float64", "weights")
def _(w: PermuterWork) -> Array:
    """A weight keeps its bits in a wider format."""
    flat = np.append(w.routes.weights.reshape(-1), np.float32(0)).astype(np.float64)
    return flat[w.rows]

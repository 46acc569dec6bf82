"""Honest variants in what is left to the implementer: ties, the order of slots, the layout."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.layouts import dense, flat, routing_map
from moe_routing.conformance.zoo.router.stages import (
    best_of,
    competing,
    expert_ids,
    filled,
    table_or,
    weights,
)
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import (
    Capabilities,
    Claim,
    DenseRouting,
    FlatRouting,
    RoutingMap,
)
from moe_routing.reference import Routing
from moe_routing.reference.selection import top_k


def highest(values: Array, k: int) -> Array:
    """Select the k best, ties to the highest index."""
    last: int = values.shape[1] - 1
    return last - top_k(values[:, ::-1], k)


@honest("ties-to-the-highest", "expert_ids", "kept_groups")
def _(w: Work, stage: str) -> Array:
    """A tie may go to the highest index, of experts and of groups."""
    if stage == "kept_groups":
        return highest(w.group_scores, w.groups.kept)
    return table_or(w, lambda: best_of(w, highest))


_ODD = np.uint64(0x9E3779B97F4A7C15)  # mixes the bits of what it multiplies


def shuffled(values: Array, k: int) -> Array:
    """Select the k best, ties in an order that follows from the row's own numbers."""
    hashes = np.array([zlib.crc32(row.tobytes()) for row in values], np.uint64)
    columns = np.arange(values.shape[1], dtype=np.uint64)
    mixed: npt.NDArray[np.uint64] = np.add(hashes[:, None], columns)
    mixed *= _ODD
    order = np.argsort(mixed ^ (mixed >> np.uint64(32)) * _ODD, axis=1)
    picked = top_k(np.take_along_axis(values, order, axis=1), k)
    return np.take_along_axis(order, picked, axis=1)


@honest("ties-by-a-hash-of-the-row", "expert_ids", "kept_groups")
def _(w: Work, stage: str) -> Array:
    """A tie may go to any of the tied, if the same call decides alike."""
    if stage == "kept_groups":
        return shuffled(w.group_scores, w.groups.kept)
    return table_or(w, lambda: best_of(w, shuffled))


@honest("selection-by-logits", "competing")
def _(w: Work) -> Array:
    """Without a bias the score function only grows, so the logits select as well."""
    plain = w.selection_bias is None and w.config.groups is None
    return w.operated if plain else competing(w)


@honest("slots-by-id", "expert_ids")
def _(w: Work) -> Array:
    """The K slots of a token have no order."""
    return table_or(w, lambda: np.sort(expert_ids(w), axis=1))


@honest("least-finite-for-infinity", "competing")
def _(w: Work) -> Array:
    """The most negative finite number masks as well, where no score can reach it."""
    if w.config.groups is None or w.config.groups.fill == 0 or not np.isfinite(w.biased).all():
        return competing(w)
    return filled(w, float(np.finfo(np.float32).min))


@honest("flat-layout", "answer")
def _(w: Work) -> FlatRouting:
    """One entry a route."""
    return flat(w)


@honest("map-layout", "answer", claims=Capabilities(claims=(Claim(expert_table=(False,)),)))
def _(w: Work) -> RoutingMap:
    """Dense probabilities with a map; hash routing, which may repeat an expert, is not claimed."""
    return routing_map(w)


@honest("narrow-ids-wide-weights", "answer")
def _(w: Work) -> Routing:
    """Ids of 16 bits and weights of 64 hold all that is asked."""
    return Routing(weights=weights(w).astype(np.float64), expert_ids=w.expert_ids.astype(np.int16))


@honest(
    "dense-without-a-map",
    "answer",
    claims=Capabilities(claims=(Claim(expert_table=(False,), per_expert_scale=(False,)),)),
)
def _(w: Work) -> DenseRouting:
    """Weights of all experts, 0 where one is not selected: one of weight 0 does not show."""
    return dense(w)

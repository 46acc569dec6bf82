"""Honest variants of drops: how a capacity is computed, ties, chance, forms of sums, layouts."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.dropper import (
    DROPPING,
    DropperWork,
    StagedDropper,
    answered,
    placed,
    ranked,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.implementations import Capabilities, Drops, RoutingMap
from moe_routing.reference import Routing

dropper = partial(honest, makes=StagedDropper)


def _claims(**axes: Any) -> Capabilities:
    return Capabilities(drops=Drops(**axes))


@dropper("dropped-plain", "answer")
def _(w: DropperWork) -> Routing:
    """Slots of the call, with -1 where a route is dropped."""
    return answered(w)


@dropper("dropped-as-a-map", "answer")
def _(w: DropperWork) -> RoutingMap:
    """A map of tokens and experts says who is kept, without any slots."""
    shape = (w.tokens, w.config.num_experts)
    probs, kept = np.zeros(shape, np.float32), np.zeros(shape, bool)
    t, k = np.nonzero(w.kept)
    probs[t, w.ids[t, k]], kept[t, w.ids[t, k]] = w.weights[t, k], True
    return RoutingMap(probs=probs, routing_map=kept)


@dropper("dropped-in-other-slots", "answer")
def _(w: DropperWork) -> Routing:
    """The order of slots is free, and ids may be of 32 bits, weights in float64."""
    right = answered(w)
    return Routing(
        weights=right.weights[:, ::-1].astype(np.float64),
        expert_ids=right.expert_ids[:, ::-1].astype(np.int32),
    )


@dropper("dropped-by-running-sums", "place", claims=_claims(order=("token", "slot")))
def _(w: DropperWork) -> Array:
    """Places as running sums of a one-hot map, slot by slot or token by token."""
    hot = np.arange(w.config.num_experts) == w.ids[:, :, None]
    flat = (hot if w.config.order == "token" else hot.swapaxes(0, 1)).reshape(
        -1, w.config.num_experts
    )
    sums = np.cumsum(flat, axis=0, dtype=np.int32) - 1
    shape = hot.shape if w.config.order == "token" else hot.swapaxes(0, 1).shape
    sums = sums.reshape(shape) if w.config.order == "token" else sums.reshape(shape).swapaxes(0, 1)
    return np.take_along_axis(sums, np.maximum(w.ids, 0)[:, :, None], axis=2)[:, :, 0]


@dropper("ties-kept-from-the-end", "place")
def _(w: DropperWork) -> Any:
    """Weights that tie are kept in any order."""
    if w.config.order != "weight":
        return DROPPING["place"](w)
    return placed(w.ids[::-1], w.rank[::-1])[::-1]


@dropper("dropped-by-chance", "rank", claims=_claims(order=("free",)))
def _(w: DropperWork) -> Array:
    """Where no order is claimed, chance may decide, anew in each call."""
    calls = w.memory["calls"] = w.memory.get("calls", 0) + 1
    return np.random.default_rng(calls).random(w.ids.shape)


@dropper("capacity-in-float32", "capacity")
def _(w: DropperWork) -> int:
    """A capacity that is computed in float32, the share first, as a tensor of one number."""
    if w.config.unlimited:
        return w.tokens
    share = np.float32(w.share) * np.float32(w.config.factor)
    whole = math.ceil(share) if w.config.rounding == "up" else math.floor(share)
    return max(whole, w.config.minimum)


@dropper("capacity-factor-first", "capacity")
def _(w: DropperWork) -> int:
    """The factor may be multiplied with K first, and the quotient come last."""
    if w.config.unlimited:
        return w.tokens
    value = np.float32(w.config.factor)
    if w.config.share != "one":
        slots = w.top_k if w.config.share == "routes" else 1
        value = value * np.float32(slots) * np.float32(w.tokens) / np.float32(w.config.num_experts)
    whole = math.ceil(value) if w.config.rounding == "up" else math.floor(value)
    return min(max(whole, w.config.minimum), w.tokens)


@dropper("rescaled-by-a-quotient", "weights")
def _(w: DropperWork) -> Array:
    """Survivors may be divided by their own sum first, which is taken backwards."""
    after = np.where(w.kept, w.before, np.float32(0))
    if w.config.survivors in ("kept", "free"):
        return after
    left = after[:, ::-1].sum(axis=1, keepdims=True, dtype=np.float32)
    whole = w.before[:, ::-1].sum(axis=1, keepdims=True, dtype=np.float32)
    share: Array = after / np.maximum(left, np.finfo(np.float32).eps)
    return share * whole if w.config.survivors == "rescaled" else share


@dropper("rescaled-in-float64", "weights")
def _(w: DropperWork) -> Array:
    """Survivors may be scaled in float64, and rounded once."""
    after = np.where(w.kept, w.before, 0.0).astype(np.float64)
    if w.config.survivors in ("kept", "free"):
        return after.astype(np.float32)
    left = after.sum(axis=1, keepdims=True)
    whole = w.before.astype(np.float64).sum(axis=1, keepdims=True)
    scale = whole if w.config.survivors == "rescaled" else 1.0
    return (after * scale / np.where(left > 0, left, 1.0)).astype(np.float32)


@dropper("survivors-as-they-like", "weights", claims=_claims(survivors=("free",)))
def _(w: DropperWork) -> Array:
    """Where nothing is claimed of what survivors weigh, they weigh anything."""
    return np.where(w.kept, np.float32(7), np.float32(0))


@dropper("dropped-minus-zero", "weights")
def _(w: DropperWork) -> Array:
    """What is dropped may weigh a 0 of either sign."""
    right: Array = DROPPING["weights"](w)
    return np.where(w.kept, right, np.float32(-0.0))


@dropper(
    "dropped-of-two-slots",
    "rank",
    claims=_claims(top_k=(2,), absent=(False,), sums=("one",), order=("slot",)),
)
def _(w: DropperWork) -> Array:
    """A function of two choices of each token takes nothing else."""
    return ranked(w)


@dropper("dropped-at-a-given-capacity", "answer", claims=_claims(share=("one",), minimum=(0,)))
def _(w: DropperWork) -> Routing:
    """A capacity may be given, and no factor at all."""
    return answered(w)

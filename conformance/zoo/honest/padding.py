"""Honest padded batches: other layouts and sentinels, padding squeezed out and put back."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.padder import PADDING, PaddedWork, StagedPadder
from moe_routing.implementations import Capabilities, Claim, FlatRouting, Pads, RoutingMap
from moe_routing.reference.padding import route_padded

padder = partial(honest, makes=StagedPadder)


@padder("padded-plain", "answer")
def _(w: PaddedWork) -> Any:
    """Route all, then leave padding out."""
    return PADDING["answer"](w)


@padder("padded-with-e", "ids", claims=Capabilities(pads=Pads(sentinel="num-experts")))
def _(w: PaddedWork) -> Array:
    """E says that no expert is there, where that is claimed."""
    right: Array = PADDING["ids"](w)
    return right.astype(np.int32)


@padder("padded-by-count-alone", "valid", claims=Capabilities(pads=Pads(told=("count",))))
def _(w: PaddedWork) -> Array:
    """A backend that takes a count is told of padding behind all tokens alone."""
    return np.arange(len(w.padding.real)) < w.padding.value


@padder("padded-in-float64", "answer")
def _(w: PaddedWork) -> Any:
    """The reference's own numbers."""
    return route_padded(w.config, w.forward.inputs, w.padding)


@padder("padded-flat", "answer")
def _(w: PaddedWork) -> Any:
    """Flat routes, those of padding among them."""
    tokens = len(w.ids)
    return FlatRouting(
        scores=w.weights.reshape(-1),
        token_indices=np.repeat(np.arange(tokens), w.config.top_k),
        expert_indices=w.ids.reshape(-1),
        num_tokens=tokens,
    )


@padder("padded-as-a-map", "answer", claims=Capabilities(claims=(Claim(expert_table=(False,)),)))
def _(w: PaddedWork) -> Any:
    """A dense map in which padding has no expert."""
    shape = len(w.ids), w.config.num_experts
    probs, marked = np.zeros(shape, np.float32), np.zeros(shape, bool)
    rows = np.flatnonzero(w.valid)[:, None]
    probs[rows, w.ids[w.valid]], marked[rows, w.ids[w.valid]] = w.weights[w.valid], True
    return RoutingMap(probs=probs, routing_map=marked)

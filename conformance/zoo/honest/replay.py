"""Honest replays: other layouts, integers, precisions and orders of the same routes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array, softmax
from moe_routing.conformance.zoo.router.replayer import (
    ReplayWork,
    StagedReplayer,
    answer,
    gathered,
    weights,
)
from moe_routing.implementations import Capabilities, Claim, FlatRouting, Replays, RoutingMap
from moe_routing.reference import Renormalize, Routing, replay
from moe_routing.reference.formats import BFLOAT16, FLOAT16

replayer = partial(honest, makes=StagedReplayer)

OTHER_BITS = Capabilities(replays=Replays(same_bits=False))
ONCE = Capabilities(replays=Replays(repeats=(False,)))
NARROW = Capabilities(
    claims=(Claim(scores_dtype=("input",), logits_dtype=("input",), weights_dtype=("input",)),),
    replays=Replays(same_bits=False),
)


@replayer("replayed-plain", "answer")
def _(w: ReplayWork) -> Any:
    """Gather at the recorded experts, and go on as ever."""
    return answer(w)


@replayer("replayed-in-32-bits", "answer_ids")
def _(w: ReplayWork) -> Array:
    """Ids may come back as int32."""
    return w.ids.astype(np.int32)


@replayer("replayed-in-float64", "answer", claims=OTHER_BITS)
def _(w: ReplayWork) -> Any:
    """The reference's own numbers, where chosen ones are of float32."""
    return w.free if w.layer is None else replay(w.config, w.forward.inputs, w.recorded)


@replayer("replayed-flat", "answer")
def _(w: ReplayWork) -> Any:
    """Flat routes keep the order of slots in each token; absent ones are among them."""
    right = answer(w)
    tokens = np.repeat(np.arange(len(right.expert_ids)), w.config.top_k)
    return FlatRouting(
        scores=right.weights.reshape(-1),
        token_indices=tokens,
        expert_indices=right.expert_ids.reshape(-1),
        num_tokens=len(right.expert_ids),
    )


@replayer("replayed-as-a-map", "answer", claims=ONCE)
def _(w: ReplayWork) -> Any:
    """A dense map has no slots, and no place for a repeated expert; its sets are judged."""
    right = answer(w)
    if w.layer is None and w.forward.inputs.expert_table is not None:
        return right  # a table may repeat an expert
    tokens, slots = np.nonzero(right.expert_ids >= 0)
    shape = len(right.expert_ids), w.config.num_experts
    probs, marked = np.zeros(shape, np.float32), np.zeros(shape, bool)
    at = tokens, right.expert_ids[tokens, slots]
    probs[at], marked[at] = right.weights[tokens, slots], True
    return RoutingMap(probs=probs, routing_map=marked)


@replayer("replayed-in-a-closed-form", "renormalized", claims=OTHER_BITS)
def _(w: ReplayWork) -> Array:
    """A renormalised softmax is the softmax of the replayed logits alone."""
    plain = w.config.renormalize == Renormalize() and w.config.score == "softmax"
    if not plain or "selected" in w.config.weights_from:
        return w.gathered / w.norm if w.config.renormalize else w.gathered
    logits = np.take_along_axis(w.forward.operated, w.at, axis=1)
    shares = softmax(np.where(w.present, logits, np.float32(-np.inf)))
    return np.where(w.present, shares, np.float32(0))


@replayer("replayed-norm-from-the-back", "norm", claims=OTHER_BITS)
def _(w: ReplayWork) -> Array:
    """The norm adds up from the last slot."""
    rule, order = w.forward.rule, np.float32(w.forward.rule.order)
    powers = np.abs(w.gathered[:, ::-1]) ** order
    total: Array = np.cumsum(powers, axis=1)[:, -1:]
    root: Array = total ** (1 / order)
    return np.asarray(np.maximum(root + np.float32(rule.eps), np.float32(rule.floor)))


@replayer("replayed-in-bfloat16", "weights", claims=replace(NARROW, dtypes=("bfloat16",)))
def _(w: ReplayWork) -> Array:
    """Weights in the dtype of the hidden states, rounded once."""
    return BFLOAT16.round(weights(w))


@replayer("replayed-in-float16", "weights", claims=replace(NARROW, dtypes=("float16",)))
def _(w: ReplayWork) -> Array:
    """The same in float16, whose weights may underflow."""
    return FLOAT16.round(weights(w)).astype(np.float32)


@replayer("replayed-absent-read-anywhere", "gathered")
def _(w: ReplayWork) -> Array:
    """What an absent route gathers is thrown away before the norm."""
    right, odd = gathered(w), np.float32(np.nan)
    return np.where(w.present, np.where(w.present, right, odd), np.float32(0))


@replayer("replayed-from-a-copy-in-rows", "ids")
def _(w: ReplayWork) -> Array:
    """The record may be copied, layer by layer, before it is read."""
    rows, ids = w.rows, np.array(w.recorded.expert_ids[:, w.layer], order="F")
    kept = np.concatenate([ids, np.full((1, ids.shape[1]), -1)])
    return kept[np.where(rows < 0, len(ids), rows)]


@replayer("replayed-only-ids", "answer", claims=Capabilities(replays=Replays(weights=(False,))))
def _(w: ReplayWork) -> Routing | Any:
    """A backend that takes no recorded weights gives its own."""
    return answer(w)

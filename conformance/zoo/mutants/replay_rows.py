"""Mutants of replay: which row of the record, which layer of it, and which memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.conformance.zoo.mutants.replay import replayer
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import as_rows, overwrite
from moe_routing.conformance.zoo.router.replayer import (
    ReplayWork,
    answer,
    of_tokens,
)
from moe_routing.reference import Routing
from moe_routing.reference.replay import NO_ROW
from moe_routing.reference.routes import ABSENT

ZERO = np.float32(0)


def _chosen(w: ReplayWork) -> Array:
    """Return what the router chooses by itself."""
    ids: Array = w.forward.expert_ids
    return ids


# Which row, which layer, which memory.


@replayer("next-layer-replayed", "M76", "layer", real="verl-project/verl#5037")
def _(w: ReplayWork) -> int | None:
    """Dense layers shifted the count: each layer replayed its neighbour's routes."""
    layer, layers = w.recorded.layer, w.recorded.num_layers
    return None if layer is None else (layer + 1) % layers


@replayer("first-layer-for-all", "M76", "layer", real="verl-project/verl#7340")
def _(w: ReplayWork) -> int | None:
    """One object held the record of all layers, and returned the first."""
    return None if w.recorded.layer is None else 0


@replayer("mtp-layer-gets-the-decoders-routes", "M76", "layer", real="NVIDIA-NeMo/RL#4057")
def _(w: ReplayWork) -> int:
    """A layer for multi-token prediction took the record of the last decoder layer."""
    layer = w.recorded.layer
    return w.recorded.num_layers - 1 if layer is None else layer


@replayer("rows-by-position", "M76", "rows", real="sgl-project/sglang#36404")
def _(w: ReplayWork) -> Array:
    """Token t got row t of the record, wherever the batch had put it."""
    return np.minimum(np.arange(w.recorded.num_tokens), max(len(w.recorded.expert_ids) - 1, 0))


@replayer("rows-inverted", "M76", "rows", real="radixark/miles#3146")
def _(w: ReplayWork) -> Array:
    """Rows were scattered where they were to be gathered: right for a swap of two, and no more."""
    rows = w.recorded.rows
    if rows is None or len(rows) != len(w.recorded.expert_ids) or (rows < 0).any():
        return np.arange(w.recorded.num_tokens) if rows is None else rows
    return np.argsort(rows)


@replayer("padding-has-the-last-row", "M76", "rows", real="NovaSky-AI/SkyRL#1908")
def _(w: ReplayWork) -> Array:
    """A row of -1 indexed from the end: padding replayed the last token's routes."""
    rows = w.recorded.rows
    if rows is None:
        return np.arange(w.recorded.num_tokens)
    return np.where(rows == NO_ROW, len(w.recorded.expert_ids) - 1, rows)


@replayer("last-row-lost", "M76", "ids", real="sgl-project/sglang#20964")
def _(w: ReplayWork) -> Array:
    """The capture dropped the last token, always; its routes came back absent."""
    ids = np.array(of_tokens(w, w.recorded.expert_ids, ABSENT))
    if True in w.forward.claims.replays.absent:
        ids[-1:] = ABSENT
    return ids


@replayer("record-of-the-call-before", "M76", "ids", real="areal-project/AReaL#1166")
def _(w: ReplayWork) -> Array:
    """Records waited in a queue: a micro-batch got the one that was put in before its own."""
    own = np.array(of_tokens(w, w.recorded.expert_ids, ABSENT))
    before = w.memory.get(own.shape, own)
    w.memory[own.shape] = own
    return before if (before < w.config.num_experts).all() else own


@replayer("absent-replay-the-last-batch", "M48", "answer_ids", real="sgl-project/sglang#24850")
def _(w: ReplayWork) -> Array:
    """The buffer outlived the batch; absent routes wrote nothing, and the last ones stayed."""
    buffer = w.memory.setdefault(w.ids.shape, np.full(w.ids.shape, ABSENT))
    buffer[w.present] = w.ids[w.present]
    return np.array(buffer)


@replayer("record-taken-for-contiguous", "M40", "ids", real="flashinfer-ai/flashinfer#4894")
def _(w: ReplayWork) -> Array:
    """A buffer of K + S slots was read as one of K: tokens drifted apart from their routes."""
    ids = of_tokens(w, as_rows(w.recorded.expert_ids), ABSENT)
    return np.clip(ids, ABSENT, w.config.num_experts - 1)


@replayer("sentinels-cleared-in-the-record", "M61", "answer", real="AI-Hypercomputer/maxtext#4826")
def _(w: ReplayWork) -> Any:
    """Ids were clamped in place: the recomputation replayed expert 0 where nothing had run."""
    right = answer(w)
    overwrite(w.recorded.expert_ids, np.maximum(w.recorded.expert_ids, 0))
    return right


@replayer("record-sorted-in-place", "M61", "answer", real="radixark/miles#2722")
def _(w: ReplayWork) -> Any:
    """The record was sorted where it lay, after it had been read."""
    right = answer(w)
    if w.layer is None:
        return right
    kept = Routing(weights=np.array(right.weights), expert_ids=np.array(right.expert_ids))
    overwrite(w.recorded.expert_ids, np.sort(w.recorded.expert_ids, axis=2))
    return kept


@replayer("replay-of-no-tokens-raises", "M53", "answer", real="radixark/miles#407")
def _(w: ReplayWork) -> Any:
    """A rank without tokens took the greatest of no ids."""
    if w.layer is not None:
        w.ids.max()
    return answer(w)

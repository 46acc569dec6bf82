"""Records that the events of replay are constructed from: other experts, rows and layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.replay import NOBODY, fitting
from moe_routing.reference import Recorded
from moe_routing.reference.formats import Ids
from moe_routing.reference.routes import ABSENT


def absent_and_first(ids: Ids) -> Ids:
    """Return routes whose first is absent, and whose second is expert 0, which no other is."""
    made = np.where(ids == 0, ABSENT, ids)
    made[:, 0], made[:, 1] = ABSENT, 0
    return made


def others(case: Case, tokens: int | None = None, layer: int = 0) -> Ids:
    """Return experts ``[tokens, K]`` in descending order, other ones for each token and layer."""
    config = case.config
    t = np.arange(case.num_tokens if tokens is None else tokens)[:, None]
    return (config.num_experts - 1 + t + layer - np.arange(config.top_k)) % config.num_experts


def plain(case: Case, change: Callable[[Ids], Ids] = lambda ids: ids, **fields: Any) -> Recorded:
    """Return the record of one layer."""
    return Recorded(expert_ids=change(others(case))[:, None].copy(), **fields)


def lose(ids: Ids, lost: Any) -> Ids:
    """Return the routes with those that are lost absent."""
    return np.where(np.broadcast_to(lost, ids.shape), ABSENT, ids)


def with_weights(case: Case, numbers: Sequence[float] = (), **fields: Any) -> Recorded:
    """Return the record of one layer with weights that no router gives, or with these numbers."""
    record = plain(case, **fields)
    size = record.expert_ids.size
    held = np.resize(np.array(numbers), size) if numbers else (1 + np.arange(size) * 5 % 64) / 96.0
    weights = fitting(case, held).reshape(record.expert_ids.shape)
    return Recorded(expert_ids=record.expert_ids, weights=weights)


def layered(case: Case, layers: int, layer: int | None, **fields: Any) -> Recorded:
    """Return the record of several layers, other experts in each."""
    ids = np.stack([others(case, layer=number) for number in range(layers)], axis=1)
    return Recorded(expert_ids=ids, layer=layer, **fields)


def in_rows(case: Case, rows: Any, number: int | None = None) -> Recorded:
    """Return a record whose tokens have these rows; what no token has is nobody's."""
    placed = np.asarray(rows, np.int64)
    count = len(placed) if number is None else number
    ids = others(case, count)[:, None].copy()
    ids[np.setdiff1d(np.arange(count), placed)] = NOBODY
    return Recorded(expert_ids=ids, rows=placed)


_PER_EXPERT = ("gate_bias", "selection_bias", "per_expert_scale")


def widened(case: Case, experts: int) -> Case:
    """Return a case of so many experts: a gate of one column, whose logits are exact."""
    inputs, column = case.inputs, (np.arange(experts) % 61 - 30) / 16.0
    hidden = np.where(np.arange(case.num_tokens) % 2, -0.5, 1.0)[:, None].astype(np.float32)
    gate = column.astype(np.float32)[:, None]
    arrays: dict[str, Any] = {"hidden": hidden, "gate_weight": gate}
    if inputs.logits is not None:
        arrays["logits"] = hidden @ gate.T
    for name in _PER_EXPERT:
        if (each := getattr(inputs, name)) is not None:
            arrays[name] = np.resize(each, experts)
    if inputs.gate_delta is not None:
        arrays["gate_delta"] = np.zeros_like(gate)
    if inputs.hidden_scale is not None:
        arrays["hidden_scale"] = np.ones(1, np.float32)
    config = replace(case.config, num_experts=experts)
    return replace(case, config=config, inputs=replace(inputs, **arrays))

"""The other layouts of an answer: flat routes, and dense weights with a map or without."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import DenseRouting, FlatRouting, RoutingMap


def flat(w: Work, **changes: Any) -> FlatRouting:
    """Return the answer as flat routes, some of its arrays replaced by ``changes``."""
    arrays = {
        "scores": w.weights.reshape(-1),
        "token_indices": np.repeat(np.arange(w.num_tokens), w.config.top_k).astype(np.int32),
        "expert_indices": w.expert_ids.reshape(-1).astype(np.int32),
    }
    return FlatRouting(**{**arrays, **changes}, num_tokens=w.num_tokens, logits=w.reported_logits)


def routing_map(w: Work, **changes: Any) -> RoutingMap:
    """Return the answer as a dense map, some of its arrays replaced by ``changes``."""
    shape = (w.num_tokens, w.config.num_experts)
    arrays = {"probs": np.zeros(shape, np.float32), "routing_map": np.zeros(shape, bool)}
    np.put_along_axis(arrays["probs"], w.expert_ids, w.weights, axis=1)
    np.put_along_axis(arrays["routing_map"], w.expert_ids, True, axis=1)
    return RoutingMap(**{**arrays, **changes}, logits=w.reported_logits)


def dense(w: Work) -> DenseRouting:
    """Return the answer as dense weights, which do not show a selected expert of weight 0."""
    table = np.zeros((w.num_tokens, w.config.num_experts), np.float32)
    np.put_along_axis(table, w.expert_ids, w.weights, axis=1)
    return dense_of(w, table)


def dense_of(w: Work, table: Array) -> DenseRouting:
    """Return a table of weights as the answer."""
    return DenseRouting(weights=table, logits=w.reported_logits)

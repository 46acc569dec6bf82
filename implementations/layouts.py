"""The result layouts that backends answer in, other than ``Routing``'s ``[T, K]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moe_routing.reference import Routing


@dataclass(frozen=True, kw_only=True, eq=False)
class FlatRouting:
    """One entry a route, as sonic-moe's kernels take them.

    Shapes: ``scores [N]``, ``token_indices [N]`` and ``expert_indices [N]`` with
    N = T * K; entry i says that token ``token_indices[i]`` runs expert
    ``expert_indices[i]`` with weight ``scores[i]``. ``num_tokens`` is T, ``logits [T, E]``
    or None, ``kernel`` as in ``Routing``. Arrays are the backend's own, of any array library.
    """

    scores: Any
    token_indices: Any
    expert_indices: Any
    num_tokens: int
    logits: Any = None
    kernel: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutingMap:
    """Dense probabilities with a boolean map, as Megatron-Core returns them.

    Shapes: ``probs [T, E]``, zero off the route, ``routing_map [T, E]`` of bool with
    exactly K trues a row, ``logits [T, E]`` or None, ``kernel`` as in ``Routing``. Arrays are
    the backend's own.
    """

    probs: Any
    routing_map: Any
    logits: Any = None
    kernel: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseRouting:
    """Dense weights alone, as Llama 4's router and others return them: 0 where not selected.

    Shapes: ``weights [T, E]`` with at most K that are not 0 in a row, ``logits [T, E]`` or None,
    ``kernel`` as in ``Routing``. A selected expert whose weight is 0 does not show: the answer is
    right where some such experts make it a right one. Arrays are the backend's own.
    """

    weights: Any
    logits: Any = None
    kernel: Any = None


AnyRouting = Routing | FlatRouting | RoutingMap | DenseRouting
"""What a router may answer with."""

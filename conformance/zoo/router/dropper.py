"""The zoo's dropper: a right capacity in NumPy, made of stages that can be replaced."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.staged import StagedAdapter
from moe_routing.reference import CapacityConfig, Routes, Routing
from moe_routing.reference.routes import ABSENT


class DropperWork:
    """One call of ``drop`` in progress: a stage's value is computed when it is first read.

    ``config`` and ``routes`` are the call's, ``memory`` what is stored between calls, and ``own``
    the stages that the dropper has in place of the right ones. ``ids [T, K]``, ``share`` (what
    the factor multiplies), ``capacity``, ``rank [T, K]`` (what routes are kept by, the least
    first), ``place [T, K]`` (how many of the expert come before), ``kept [T, K]``, ``before``
    and ``weights [T, K]``, ``answer``.
    """

    ids: Array
    share: float
    capacity: int
    rank: Array
    place: Array
    kept: Array
    before: Array
    weights: Array
    answer: Any

    def __init__(
        self,
        own: Mapping[str, DropperStage],
        config: CapacityConfig,
        routes: Routes,
        memory: dict[Any, Any],
    ) -> None:
        self._own, self.config, self.routes, self.memory = own, config, routes, memory

    def __getattr__(self, stage: str) -> Any:
        if stage not in DROPPING:
            raise AttributeError(f"a dropper has no stage {stage!r}")
        value = (self._own.get(stage) or DROPPING[stage])(self)
        vars(self)[stage] = value
        return value

    @property
    def tokens(self) -> int:
        """T."""
        return self.routes.num_tokens

    @property
    def top_k(self) -> int:
        """K."""
        return self.routes.top_k


DropperStage = Callable[[DropperWork], Any]


class StagedDropper(StagedAdapter):
    """An adapter that only drops; its answer is the last of its stages."""

    def drop(self, config: CapacityConfig, routes: Routes) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``."""
        self._capabilities.drops.require(config, routes)
        return DropperWork(self._stages, config, routes, self.memory).answer


def shared(w: DropperWork) -> float:
    """Return what the factor multiplies."""
    if w.config.share == "one":
        return 1.0
    return w.tokens * (w.top_k if w.config.share == "routes" else 1) / w.config.num_experts


def rounded(w: DropperWork, value: float) -> int:
    """Return a number rounded as the configuration says."""
    return math.ceil(value) if w.config.rounding == "up" else math.floor(value)


def room(w: DropperWork) -> int:
    """Return the capacity."""
    if w.config.unlimited:
        return w.tokens
    return max(rounded(w, w.share * w.config.factor), w.config.minimum)


def ranked(w: DropperWork) -> Array:
    """Return what routes are kept by, the least first."""
    tokens, slots = np.indices(w.ids.shape)
    if w.config.order == "weight":
        return -w.routes.weights
    return np.asarray(tokens + slots * (w.tokens if w.config.order == "slot" else 0))


def placed(ids: Array, rank: Array) -> Array:
    """Return how many routes of the same expert come before each, by rank, then by token."""
    flat = ids.reshape(-1)
    order = np.lexsort((rank.reshape(-1), flat))
    place = np.empty(flat.size, np.int64)
    place[order] = np.arange(flat.size) - np.searchsorted(flat[order], flat[order])
    return place.reshape(ids.shape)


def surviving(w: DropperWork) -> Array:
    """Return the weights of what is kept, in float32."""
    after = np.where(w.kept, w.before, np.float32(0))
    if w.config.survivors in ("kept", "free"):
        return after
    left = after.sum(axis=1, keepdims=True)
    rescaled = w.config.survivors == "rescaled"
    whole = w.before.sum(axis=1, keepdims=True) if rescaled else np.float32(1)
    scaled: Array = after * (whole / np.where(left > 0, left, np.float32(1)))
    return scaled


def answered(w: DropperWork) -> Routing:
    """Answer in the slots of the call, with -1 where a route is dropped."""
    return Routing(weights=w.weights, expert_ids=np.where(w.kept, w.ids, ABSENT))


DROPPING: dict[str, DropperStage] = {
    "ids": lambda w: w.routes.expert_ids.copy(),
    "share": shared,
    "capacity": room,
    "rank": ranked,
    "place": lambda w: placed(w.ids, w.rank),
    "kept": lambda w: (w.ids != ABSENT) & (w.place < w.capacity),
    "before": lambda w: np.where(w.ids == ABSENT, np.float32(0), w.routes.weights),
    "weights": surviving,
    "answer": answered,
}
"""The right stages of a drop, by name."""

"""The zoo's permuter: a right permutation in NumPy, made of stages that can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.staged import StagedAdapter, StagedWork
from moe_routing.reference import PermutationConfig, Routes, SortedRoutes
from moe_routing.reference.permutation import PADDING


class PermuterWork(StagedWork):
    """One permutation in progress.

    ``config`` and ``routes`` are the call's, ``memory`` what is stored between calls, and ``own``
    the stages that the permuter has in place of the right ones. With N routes, R rows, E experts:
    ``ids [N]``, ``counts [E]``, ``sizes [E]``, ``starts [E + 1]``, ``order`` (the present routes
    by expert), ``rows [R]``, ``inverse [N]``, ``gather [R]``, ``weights [R]``,
    ``reported_counts [E]``, ``tile_experts [M]`` of ``tile`` rows each, ``answer``.
    """

    ids: Array
    counts: Array
    sizes: Array
    starts: Array
    order: Array
    rows: Array
    inverse: Array
    gather: Array
    weights: Array
    reported_counts: Array
    tile_experts: Array
    answer: Any

    def __init__(
        self,
        own: Mapping[str, PermuterStage],
        config: PermutationConfig,
        routes: Routes,
        memory: dict[Any, Any],
    ) -> None:
        super().__init__("a permuter", PERMUTING, own, memory)
        self.config, self.routes = config, routes

    @property
    def tile(self) -> int:
        """The rows of a tile: those of the alignment, or four where there is none."""
        return self.config.align if self.config.align > 1 else 4

    @property
    def experts(self) -> int:
        """E."""
        return self.config.num_experts


PermuterStage = Callable[[PermuterWork], Any]


class StagedPermuter(StagedAdapter):
    """An adapter that only permutes; its answer is the last of its stages."""

    def permute(self, config: PermutationConfig, routes: Routes) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``."""
        self._capabilities.permutes.require(config, routes)
        return PermuterWork(self._stages, config, routes, self.memory).answer


def histogram(ids: Array, experts: int) -> Array:
    """Count the ids of each expert; those that are none are left out."""
    return np.bincount(ids[(ids >= 0) & (ids < experts)], minlength=experts)


def summed(values: Array) -> Array:
    """Return exclusive sums, and last the sum of all."""
    return np.concatenate([[0], np.cumsum(values)])


def by_expert(w: PermuterWork) -> Array:
    """Return the present routes by expert, stable."""
    order = np.argsort(w.ids, kind="stable")
    return order[np.count_nonzero(w.ids < 0) :]


def placed(w: PermuterWork) -> Array:
    """Write every route into the next free row of its expert."""
    rows = np.full(max(0, int(w.starts[-1])), PADDING)
    experts = w.ids[w.order]
    within = np.arange(experts.size) - summed(histogram(experts, w.experts))[experts]
    places = w.starts[experts] + within
    fits = (places >= 0) & (places < rows.size)
    rows[places[fits]] = w.order[fits]
    return rows


def inverted(w: PermuterWork) -> Array:
    """Return the row of every route; -1 for none."""
    found = np.full(w.routes.num_routes, PADDING)
    held = np.flatnonzero((w.rows >= 0) & (w.rows < w.routes.num_routes))
    found[w.rows[held]] = held
    return found


def weighed(w: PermuterWork) -> Array:
    """Return the weight of the route in each row; 0 in padding."""
    flat = np.append(w.routes.weights.reshape(-1), np.float32(0))
    present: Array = flat[np.clip(np.where(w.rows < 0, flat.size - 1, w.rows), 0, flat.size - 1)]
    return present


def tiled(w: PermuterWork) -> Array:
    """Return the expert of every tile."""
    return np.repeat(np.arange(w.experts), -(-np.diff(w.starts) // w.tile))


def sorted_routes(w: PermuterWork) -> SortedRoutes:
    """Answer with sorted routes and all that follows from them."""
    return SortedRoutes(
        routes=w.rows,
        starts=w.starts,
        counts=w.reported_counts,
        inverse=w.inverse.reshape(w.routes.expert_ids.shape),
        gather=w.gather,
        weights=w.weights,
        tile_experts=w.tile_experts,
        tile=w.tile,
    )


PERMUTING: dict[str, PermuterStage] = {
    "ids": lambda w: w.routes.experts.copy(),
    "counts": lambda w: histogram(w.ids, w.experts),
    "sizes": lambda w: w.config.sizes(w.counts),
    "starts": lambda w: summed(w.sizes),
    "order": by_expert,
    "rows": placed,
    "inverse": inverted,
    "gather": lambda w: np.where(w.rows < 0, PADDING, w.rows // w.routes.top_k),
    "weights": weighed,
    "reported_counts": lambda w: w.counts,
    "tile_experts": tiled,
    "answer": sorted_routes,
}
"""The right stages of a permutation, by name."""

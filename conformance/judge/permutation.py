"""What a permutation is judged by: what is due, the answer as it was read, and a breach of a law.

The laws are in ``permutation_laws`` and, of optional arrays, ``permutation_parts``; they are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference import Permutation, PermutationConfig, Routes
from moe_routing.reference.formats import Bools, Ids
from moe_routing.reference.layout_readers import segment_of_row

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Breach:
    """One place that breaks a law: in words, with the row, the route and the expert, if any."""

    words: str
    row: int | None = None
    route: int | None = None
    expert: int | None = None


@dataclass(frozen=True, eq=False)
class Due:
    """What follows from the routes of a call: how many each expert has, and the rows they take."""

    config: PermutationConfig
    routes: Routes

    @cached_property
    def experts(self) -> Ids:
        """The expert of every route, ``[N]``; -1 where it is absent."""
        return self.routes.experts

    @cached_property
    def present(self) -> Bools:
        """Whether each route is there, ``[N]``."""
        return self.routes.present

    @cached_property
    def counts(self) -> Ids:
        """The routes of each expert, ``[E]``."""
        found = np.bincount(self.experts[self.present], minlength=self.config.num_experts)
        return found.astype(np.int64)

    @cached_property
    def sizes(self) -> Ids:
        """The rows that each expert takes, padding included, and none wasted, ``[E]``."""
        return self.config.sizes(self.counts)

    @property
    def num_routes(self) -> int:
        """N, absent routes included."""
        return self.routes.num_routes

    def named(self, route: int) -> str:
        """Return ``token 3, slot 1 (route 7)``."""
        token, slot = divmod(int(route), self.routes.top_k)
        return f"token {token}, slot {slot} (route {route})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Permuted:
    """An answer, read: the permutation, which may break every law, and the optional arrays.

    ``inverse [N]``, ``gather [R]``, ``weights [R]`` and ``tile_experts``, with the rows of a
    ``tile``, are None where the layout has none. ``used`` and ``capacity`` are the rows that are
    used and those of the buffer, where the layout tells them apart.
    """

    permutation: Permutation
    inverse: Ids | None = None
    gather: Ids | None = None
    weights: Array | None = None
    tile_experts: Ids | None = None
    tile: int | None = None
    used: int | None = None
    capacity: int | None = None

    @cached_property
    def expert_of_row(self) -> Ids:
        """The expert whose segment each row lies in, ``[R]``; -1 for a row in none."""
        return segment_of_row(self.permutation.starts, self.permutation.rows.size)

    @property
    def parts(self) -> frozenset[str]:
        """The optional arrays that the answer has."""
        names = {"tile_experts": "tiles", "inverse": "inverse", "gather": "gather"}
        found = {word for name, word in names.items() if getattr(self, name) is not None}
        return frozenset(found | ({"weights"} if self.weights is not None else set()))

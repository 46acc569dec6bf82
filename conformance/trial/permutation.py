"""The trial of a permutation, and the boundary that its arrays come through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from moe_routing.conformance.calls.permutation import PermutationCase
from moe_routing.conformance.judge.permutation import Due, Permuted
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed, to_numpy
from moe_routing.reference import AlignedBlocks, RowOfRoute, SortedRoutes
from moe_routing.reference.formats import Ids
from moe_routing.reference.layout_readers import integers, number, read_layout
from moe_routing.reference.layouts import LAYOUTS, Layout

_NAMES = ", ".join(each.__name__ for each in LAYOUTS)


@dataclass(frozen=True, eq=False)
class PermutationTrial(BaseTrial[PermutationCase]):
    """One permutation for one adapter."""

    method: str = "permute"

    @property
    def due(self) -> Due:
        """What follows from the routes."""
        return self.once(due_of)

    @property
    def facts(self) -> Due:
        """The value that events are read from."""
        return self.due

    @property
    def layout(self) -> str:
        """The name of the layout of the answer. Errors: ``Raised``, ``Malformed``."""
        return type(self.layout_read).__name__

    @property
    def parts(self) -> frozenset[str]:
        """The optional arrays that the answer has. Errors: as ``layout``."""
        return self.received.parts

    @cached_property
    def layout_read(self) -> Layout:
        """The answer with NumPy arrays in it. Errors: as ``layout``."""
        return in_numpy(self.native)

    @cached_property
    def received(self) -> Permuted:
        """The answer, read. Errors: as ``layout``."""
        try:
            return read(self.layout_read, self.case)
        except ValueError as error:
            raise Malformed(str(error)) from error


def due_of(case: PermutationCase) -> Due:
    """Return what follows from the routes of a case."""
    return Due(case.config, case.inputs)


def in_numpy(raw: object) -> Layout:
    """Copy the arrays of a native answer to NumPy. Errors: ``Malformed``."""
    if not isinstance(raw, LAYOUTS):
        kind = "None" if raw is None else f"a {type(raw).__name__}"
        raise Malformed(f"permute returned {kind}, but should return one of {_NAMES}")
    arrays = {
        name: to_numpy(name, value)
        for name, value in vars(raw).items()
        if value is not None and not isinstance(value, int)
    }
    return cast(Layout, replace(cast(Any, raw), **arrays))


def read(layout: Layout, case: PermutationCase) -> Permuted:
    """Read a layout that holds NumPy arrays. Errors: ``ValueError``."""
    routes = case.inputs
    permutation = read_layout(layout, routes, case.config.num_experts)
    size, tiled = permutation.rows.size, getattr(layout, "tile_experts", None)
    inverse = getattr(layout, "inverse", None)
    if isinstance(layout, RowOfRoute):
        inverse = layout.row_of_route
    gather = getattr(layout, "gather", None)
    return Permuted(
        permutation=permutation,
        inverse=None if inverse is None else _of_routes(inverse, routes.expert_ids.shape),
        gather=None if gather is None else integers("gather", gather, (size,)),
        weights=None if layout.weights is None else _weights(layout, size),
        **({} if tiled is None else _tiles(layout)),
        **(_blocks(layout) if isinstance(layout, AlignedBlocks) else {}),
    )


def _of_routes(inverse: Any, shape: tuple[int, ...]) -> Ids:
    """Return the inverse map as ``[N]``, from that or from ``[T, K]``."""
    flat = np.ndim(inverse) == 1
    read_in = integers("inverse", inverse, (shape[0] * shape[1],) if flat else shape)
    return read_in.reshape(-1)


def _weights(layout: Layout, size: int) -> Any:
    found = layout.weights
    if found.dtype.kind != "f":
        raise ValueError(f"Expected weights to be floating point but got dtype {found.dtype}")
    if isinstance(layout, AlignedBlocks):
        found = found[:size]
    if found.shape != (size,):
        raise ValueError(f"Expected weights of shape [{size}] but got shape {found.shape}")
    return found


def _tiles(layout: SortedRoutes | RowOfRoute | Any) -> dict[str, Any]:
    experts = integers("tile_experts", layout.tile_experts, (None,))
    if layout.tile is None:
        raise ValueError("Expected tile, the rows of a tile, to be given with tile_experts")
    if isinstance(layout, RowOfRoute) and layout.used_tiles is not None:
        used = number("used_tiles", layout.used_tiles)
        capacity = {"used": used * layout.tile, "capacity": experts.size * layout.tile}
        return {"tile_experts": experts[:used], "tile": layout.tile, **capacity}
    return {"tile_experts": experts, "tile": layout.tile}


def _blocks(layout: AlignedBlocks) -> dict[str, Any]:
    used, experts = number("used", layout.used), integers("b", layout.block_experts, (None,))
    return {
        "tile_experts": experts[: -(-used // layout.block)],
        "tile": layout.block,
        "used": used,
        "capacity": min(layout.rows.size, experts.size * layout.block),
    }

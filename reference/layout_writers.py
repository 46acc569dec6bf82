"""Layouts written: from the canonical form to each of the four."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moe_routing.reference.layouts import AlignedBlocks, RowOfRoute, SortedRoutes, SortedTokens
from moe_routing.reference.permutation import PADDING, Permutation
from moe_routing.reference.permutation_maps import (
    Offsets,
    offsets,
    row_of_route,
    token_of_row,
)
from moe_routing.reference.routes import Routes


def as_sorted_routes(
    permutation: Permutation, routes: Routes, *, convention: Offsets = "ends"
) -> SortedRoutes:
    """Return ``SortedRoutes`` with every optional array but tiles.

    ``convention`` is ``ends`` or ``starts``. Errors: ``ValueError`` for another one.
    """
    if convention not in ("ends", "starts"):
        raise ValueError(f"Expected convention to be ends or starts but got {convention!r}")
    found = offsets(permutation, convention)
    return SortedRoutes(
        routes=permutation.rows,
        ends=found if convention == "ends" else None,
        starts=found if convention == "starts" else None,
        counts=permutation.counts,
        inverse=row_of_route(permutation, routes.num_routes).reshape(routes.expert_ids.shape),
        gather=token_of_row(permutation, routes.top_k),
        weights=weight_of_row(permutation, routes),
    )


def as_sorted_tokens(permutation: Permutation, routes: Routes) -> SortedTokens:
    """Return ``SortedTokens``. Errors: ``ValueError`` where there are padding rows."""
    if (permutation.rows == PADDING).any():
        row = int(np.argmax(permutation.rows == PADDING))
        raise ValueError(
            f"Cannot have padding (rows[{row}]={PADDING}) in SortedTokens, which has none; "
            "realign the permutation with align=1 first"
        )
    return SortedTokens(
        tokens=token_of_row(permutation, routes.top_k),
        counts=permutation.counts,
        weights=weight_of_row(permutation, routes),
    )


def as_aligned_blocks(
    permutation: Permutation, routes: Routes, *, block: int, padding: int | None = None
) -> AlignedBlocks:
    """Return ``AlignedBlocks``; ``padding`` is T * K, as in vLLM, where it is not given.

    Errors: ``ValueError`` where a segment is no multiple of ``block``.
    """
    sizes = np.diff(offsets(permutation, "starts", block=block))
    mark = routes.num_routes if padding is None else padding
    return AlignedBlocks(
        rows=np.where(permutation.rows == PADDING, mark, permutation.rows),
        block_experts=np.repeat(np.arange(permutation.num_experts), sizes),
        used=permutation.num_rows,
        block=block,
        padding=mark,
        counts=permutation.counts,
        weights=weight_of_row(permutation, routes),
    )


def as_row_of_route(
    permutation: Permutation, routes: Routes, *, tile: int | None = None
) -> RowOfRoute:
    """Return ``RowOfRoute``: with ``starts``, or with tiles of ``tile`` rows where it is given.

    Errors: ``ValueError`` where a segment is no multiple of ``tile``.
    """
    experts = None
    if tile is not None:
        sizes = np.diff(offsets(permutation, "starts", block=tile))
        experts = np.repeat(np.arange(permutation.num_experts), sizes)
    return RowOfRoute(
        row_of_route=row_of_route(permutation, routes.num_routes).reshape(routes.expert_ids.shape),
        starts=permutation.starts if tile is None else None,
        tile_experts=experts,
        used_tiles=None if experts is None else experts.size,
        tile=tile,
        counts=permutation.counts,
        gather=token_of_row(permutation, routes.top_k),
        weights=weight_of_row(permutation, routes),
    )


def weight_of_row(permutation: Permutation, routes: Routes) -> npt.NDArray[np.float32]:
    """Return the weight of every row's route, ``[R]`` float32; 0 in padding rows."""
    flat = np.append(routes.weights.reshape(-1), np.float32(0.0))
    return flat[np.where(permutation.rows == PADDING, -1, permutation.rows)]

"""The four layouts that libraries return permutations in (docs/spec/permutation.md).

``layout_readers`` and ``layout_writers`` convert between them, through the canonical form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moe_routing.reference.permutation import PADDING


@dataclass(frozen=True, kw_only=True, eq=False)
class SortedRoutes:
    """Routes sorted by expert: scattermoe, sonic-moe, Liger, triton_kernels, megablocks, JAX.

    Shapes: ``routes [R]``, the route in each row, -1 in padding rows; one of ``ends [E]``
    (inclusive offsets), ``starts [E + 1]`` (from 0) and ``counts [E]`` (of routes; alone, they
    say that nothing is padded). Optional: ``counts`` with offsets, ``inverse [T, K]`` (the row
    of each route), ``gather [R]`` (the token of each row), ``weights [R]`` (those of the rows'
    routes), ``tile_experts [M]`` with ``tile``, the rows of a tile. Arrays are the backend's own.
    """

    routes: Any
    ends: Any = None
    starts: Any = None
    counts: Any = None
    inverse: Any = None
    gather: Any = None
    weights: Any = None
    tile_experts: Any = None
    tile: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SortedTokens:
    """Tokens sorted by expert: Megatron, torchtitan.

    Shapes: ``tokens [R]``, the token in each row, ``counts [E]``, and optionally
    ``weights [R]``. There is no padding. A row names its route by token and expert: where an
    expert holds several slots of a token, its first row is the first of these slots.
    """

    tokens: Any
    counts: Any
    weights: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignedBlocks:
    """Blocks of one expert each: vLLM, sglang, aiter.

    Shapes: ``rows [capacity]``, the route in each row, ``padding`` (vLLM: T * K) in padding
    rows; ``block_experts [capacity / block]``. Only the first ``used`` rows, an int or an array
    of one, and their blocks are read. Optional: ``counts [E]`` of routes, ``weights [used]``.
    """

    rows: Any
    block_experts: Any
    used: Any
    block: int
    padding: int = PADDING
    counts: Any = None
    weights: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RowOfRoute:
    """The row of every route: TRT-LLM, FlashInfer, sglang's expert parallelism, TE, DeepEP.

    Shapes: ``row_of_route [T, K]``, -1 for an absent route; ``tile_experts [M]``, of which the
    first ``used_tiles`` of ``tile`` rows each are read, or ``starts [E + 1]``, or both. Optional:
    ``counts [E]`` of routes, ``gather [R]`` (the token of each row), ``weights [R]``.
    """

    row_of_route: Any
    tile_experts: Any = None
    used_tiles: Any = None
    tile: int | None = None
    starts: Any = None
    counts: Any = None
    gather: Any = None
    weights: Any = None


Layout = SortedRoutes | SortedTokens | AlignedBlocks | RowOfRoute
LAYOUTS: tuple[type[Layout], ...] = (SortedRoutes, SortedTokens, AlignedBlocks, RowOfRoute)

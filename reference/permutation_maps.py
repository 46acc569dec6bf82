"""What follows from a permutation: inverse, gather indices, offsets of every convention, tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from moe_routing.reference.checks import require_choice, require_count
from moe_routing.reference.formats import Ids
from moe_routing.reference.permutation import PADDING, Permutation, summed
from moe_routing.reference.routes import ABSENT, Routes

Offsets = Literal["ends", "starts", "exclusive"]
OFFSETS: tuple[str, ...] = get_args(Offsets)


def row_of_route(permutation: Permutation, num_routes: int) -> Ids:
    """Return the row of every route, ``[num_routes]``; -1 for a route that is in none.

    Errors: ``ValueError`` where a row holds a route that is not below ``num_routes``.
    """
    filled = np.flatnonzero(permutation.rows != PADDING)
    routes = permutation.rows[filled]
    if routes.size and routes.max() >= num_routes:
        raise ValueError(f"Cannot have num_routes={num_routes}: a row holds route {routes.max()}")
    found = np.full(num_routes, PADDING, np.int64)
    found[routes] = filled
    return found


def expert_of_row(permutation: Permutation) -> Ids:
    """Return the expert of every row, ``[R]``, padding rows included."""
    return np.repeat(np.arange(permutation.num_experts), permutation.sizes)


def token_of_row(permutation: Permutation, top_k: int) -> Ids:
    """Return the token of every row, ``[R]``, which is what a gather reads; -1 in padding."""
    require_count("top_k", top_k, at_least=1)
    return np.where(permutation.rows == PADDING, PADDING, permutation.rows // top_k)


def offsets(
    permutation: Permutation,
    convention: Offsets = "ends",
    *,
    block: int = 1,
    padded: bool = True,
) -> Ids:
    """Return where segments lie, in the convention that a library wants.

    ``ends [E]`` are inclusive (scattermoe, megablocks, torchao), ``starts [E + 1]`` begin with
    0 and end at R (sonic-moe, Liger, vLLM), ``exclusive [E]`` leave out that last one. They
    count blocks of ``block`` rows, and not ``padded`` they count routes alone. Errors:
    ``ValueError`` where a segment is no multiple of ``block``.
    """
    require_choice("convention", convention, OFFSETS)
    require_count("block", block, at_least=1)
    starts = permutation.starts if padded else summed(permutation.counts)
    odd = np.flatnonzero(starts % block)
    if odd.size:
        raise ValueError(
            f"Cannot have block={block}: offset {starts[odd[0]]} is no multiple of it; "
            f"realign the permutation with align={block} first"
        )
    whole = starts // block
    return {"ends": whole[1:], "starts": whole, "exclusive": whole[:-1]}[convention]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiles:
    """Tiles of a fixed height, each of one expert, in the order of the rows.

    Shapes, all int64: ``experts [M]``, ``first_rows [M]``, and ``limits [M]``: the row after
    the last route in the tile, or its first row where it holds none.
    """

    experts: Ids
    first_rows: Ids
    limits: Ids


def tiles(permutation: Permutation, height: int) -> Tiles:
    """Cut every segment into tiles of ``height`` rows; the last of a segment may be shorter."""
    require_count("height", height, at_least=1)
    number = -(-permutation.sizes // height)
    experts = np.repeat(np.arange(permutation.num_experts), number)
    within = np.arange(experts.size) - np.repeat(summed(number)[:-1], number)
    first = permutation.starts[experts] + within * height
    filled = permutation.starts[experts] + permutation.counts[experts]
    limits = np.clip(filled, first, first + height)
    return Tiles(experts=experts, first_rows=first, limits=limits)


def has_repeats(routes: Routes) -> bool:
    """Return whether an expert holds several slots of a token."""
    ordered = np.sort(routes.expert_ids, axis=1)
    return bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != ABSENT)).any())

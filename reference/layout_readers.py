"""Layouts read: from each of the four to the canonical form."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.reference.arrays import convert
from moe_routing.reference.checks import require_count
from moe_routing.reference.formats import Ids
from moe_routing.reference.layouts import (
    AlignedBlocks,
    Layout,
    RowOfRoute,
    SortedRoutes,
    SortedTokens,
)
from moe_routing.reference.permutation import PADDING, Permutation, routes_in
from moe_routing.reference.routes import Routes

NO_ROUTE = -2
"""What a row of ``SortedTokens`` holds whose token did not choose its expert."""

_MOST_ROWS = 2**26


def permutation_of(layout: Layout, routes: Routes, num_experts: int) -> Permutation:
    """Return the canonical form of a layout that holds ``routes``.

    Errors: ``ValueError`` for an array of another shape or dtype than the layout has, and for
    what is no permutation.
    """
    read = read_layout(layout, routes, num_experts)
    return Permutation(rows=read.rows, starts=read.starts, counts=read.counts)


def read_layout(layout: Layout, routes: Routes, num_experts: int) -> Permutation:
    """Return what a layout says, which may break every law of a permutation.

    A row whose token did not choose its expert holds ``NO_ROUTE``. Errors: ``ValueError`` for
    an array of another shape or dtype than the layout has.
    """
    require_count("num_experts", num_experts, at_least=1)
    if isinstance(layout, SortedRoutes):
        return _from_routes(layout, num_experts)
    if isinstance(layout, SortedTokens):
        return _from_tokens(layout, routes, num_experts)
    if isinstance(layout, AlignedBlocks):
        return _from_blocks(layout, num_experts)
    return _from_rows(layout, routes, num_experts)


def _from_routes(layout: SortedRoutes, num_experts: int) -> Permutation:
    rows = integers("routes", layout.routes, (None,))
    given = [name for name in ("ends", "starts") if getattr(layout, name) is not None]
    if len(given) > 1 or (not given and layout.counts is None):
        raise ValueError("Expected SortedRoutes to have one of ends, starts and counts")
    if not given:
        counts = integers("counts", layout.counts, (num_experts,))
        return Permutation.unchecked(rows, _after_zero(np.cumsum(counts)), counts)
    if given == ["ends"]:
        starts = _after_zero(integers("ends", layout.ends, (num_experts,)))
    else:
        starts = integers("starts", layout.starts, (num_experts + 1,))
    return Permutation.unchecked(rows, starts, _counted(layout, rows, starts))


def _from_tokens(layout: SortedTokens, routes: Routes, num_experts: int) -> Permutation:
    """Match the rows of each token and expert with its slots, both in the order of numbers."""
    tokens = integers("tokens", layout.tokens, (None,))
    counts = integers("counts", layout.counts, (num_experts,))
    starts = _after_zero(np.cumsum(counts))
    experts = segment_of_row(starts, tokens.size)
    wild = (tokens < 0) | (tokens >= routes.num_tokens) | (experts < 0)
    keys = np.where(wild, -1, experts * max(1, routes.num_tokens) + tokens)
    chosen = np.flatnonzero(routes.present)
    due = routes.experts[chosen] * routes.num_tokens + chosen // routes.top_k
    slots, order = np.argsort(due, kind="stable"), np.argsort(keys, kind="stable")
    ordered = keys[order]
    nth = np.arange(ordered.size) - np.searchsorted(ordered, ordered)
    place = np.searchsorted(due[slots], ordered) + nth
    last = np.searchsorted(due[slots], ordered, side="right")
    rows = np.full(tokens.size, NO_ROUTE, np.int64)
    fits = (place < last) & (ordered >= 0)
    rows[order[fits]] = chosen[slots[place[fits]]]
    return Permutation.unchecked(rows, starts, counts)


def _from_blocks(layout: AlignedBlocks, num_experts: int) -> Permutation:
    require_count("block", layout.block, at_least=1)
    used = number("used", layout.used)
    rows = integers("rows", layout.rows, (None,))[:used]
    experts = integers("block_experts", layout.block_experts, (None,))[: -(-used // layout.block)]
    starts = _after_zero(np.cumsum(_times(experts, num_experts) * layout.block))
    rows = np.where(rows == layout.padding, PADDING, rows)
    return Permutation.unchecked(rows, starts, _counted(layout, rows, starts))


def _from_rows(layout: RowOfRoute, routes: Routes, num_experts: int) -> Permutation:
    """Invert the map; of routes in one row the last is kept, and a row that is none is left out."""
    places = integers("row_of_route", layout.row_of_route, routes.expert_ids.shape).reshape(-1)
    if layout.starts is not None:
        starts = integers("starts", layout.starts, (num_experts + 1,))
    elif layout.tile_experts is None or layout.used_tiles is None or layout.tile is None:
        raise ValueError("Expected RowOfRoute to have starts, or tile_experts, used_tiles and tile")
    else:
        require_count("tile", layout.tile, at_least=1)
        used = number("used_tiles", layout.used_tiles)
        experts = integers("tile_experts", layout.tile_experts, (None,))[:used]
        starts = _after_zero(np.cumsum(_times(experts, num_experts) * layout.tile))
    if starts[-1] > _MOST_ROWS:
        raise ValueError(f"Cannot have {starts[-1]} rows: no buffer has more than {_MOST_ROWS}")
    rows = np.full(max(0, int(starts[-1])), PADDING, np.int64)
    inside = np.flatnonzero((places >= 0) & (places < rows.size))
    rows[places[inside]] = inside
    return Permutation.unchecked(rows, starts, _counted(layout, rows, starts))


def segment_of_row(starts: Ids, num_rows: int) -> Ids:
    """Return the segment of every row, ``[num_rows]``; -1 where offsets leave a row out."""
    sizes = np.maximum(np.diff(np.clip(starts, 0, num_rows)), 0)
    segments = np.repeat(np.arange(sizes.size), sizes)[:num_rows]
    return np.append(segments, np.full(num_rows - segments.size, -1))


def integers(name: str, value: Any, shape: tuple[int | None, ...]) -> Ids:
    """Return an array of integers as int64. Errors: ``ValueError`` for another shape or dtype."""
    array = convert(name, value, np.int64)
    fits = array.ndim == len(shape)
    if not fits or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"Expected {name} of shape [{wanted}] but got shape {array.shape}")
    return array


def number(name: str, value: Any) -> int:
    """Return an int, also from an array of one. Errors: ``ValueError``."""
    array = convert(name, value, np.int64)
    if array.size != 1 or array.item() < 0:
        raise ValueError(f"Expected {name} to be one number of 0 or more but got {array.tolist()}")
    return int(array.item())


def _counted(layout: Any, rows: Ids, starts: Ids) -> Ids:
    """Return the counts that a layout gives, or the routes in each of its segments."""
    if layout.counts is None:
        return routes_in(rows, starts)
    return integers("counts", layout.counts, (starts.size - 1,))


def _times(experts: Ids, num_experts: int) -> Ids:
    known = experts[(experts >= 0) & (experts < num_experts)]
    return np.bincount(known, minlength=num_experts).astype(np.int64)


def _after_zero(ends: Ids) -> Ids:
    return np.concatenate([[0], ends]).astype(np.int64)

"""The laws of what a layout may hold beside its rows, and those of a whole answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moe_routing.conformance.judge.permutation import Array, Breach, Due, Permuted
from moe_routing.conformance.judge.permutation_laws import (
    aligned,
    conserved,
    counts,
    first,
    grouped,
    offsets,
    padding_marked,
)
from moe_routing.reference.formats import Ids
from moe_routing.reference.permutation import PADDING

Law = Callable[[Due, Permuted], Breach | None]


def inverse(due: Due, answer: Permuted) -> Breach | None:
    """The inverse map leads from every present route to its row, and from an absent one nowhere."""
    rows, places = answer.permutation.rows, answer.inverse
    assert places is not None
    inside = (places >= 0) & (places < rows.size)
    held = np.append(rows, PADDING)[np.where(inside, places, -1)]
    wrong = np.where(due.present, held != np.arange(due.num_routes), inside)
    if not wrong.any():
        return None
    route = first(wrong)
    row = int(places[route])
    what = f"row {row} holds route {held[route]}" if inside[route] else f"there is no row {row}"
    if not due.present[route]:
        what = "the route is absent"
    words = f"inverse of {due.named(route)} is {row}, but {what}"
    return Breach(words=words, row=row if inside[route] else None, route=route)


def gather(due: Due, answer: Permuted) -> Breach | None:
    """The gather index of a row is the token of its route."""
    rows, tokens = answer.permutation.rows, answer.gather
    assert tokens is not None
    known = (rows >= 0) & (rows < due.num_routes)
    wrong = known & (tokens != rows // due.routes.top_k)
    if not wrong.any():
        return None
    row = first(wrong)
    route = int(rows[row])
    words = f"gather[{row}]={tokens[row]}, but the row holds {due.named(route)}"
    return Breach(words=words, row=row, route=route)


def tiles(due: Due, answer: Permuted) -> Breach | None:
    """Tiles name experts in the order of the segments, as many as the rows of each need."""
    experts, tile = answer.tile_experts, answer.tile
    assert experts is not None
    assert tile is not None
    wild = (experts < 0) | (experts >= due.config.num_experts)
    if wild.any():
        m = first(wild)
        words = f"tile {m} is of expert {experts[m]}, but there are {due.config.num_experts}"
        return Breach(words=words, row=m * tile)
    if (np.diff(experts) < 0).any():
        m = first(np.diff(experts) < 0) + 1
        words = f"tile {m} is of expert {experts[m]}, after a tile of expert {experts[m - 1]}"
        return Breach(words=words, row=m * tile, expert=int(experts[m]))
    number = np.bincount(experts, minlength=due.config.num_experts)
    needed = -(-np.maximum(answer.permutation.sizes, due.counts) // tile)
    if (number == needed).all():
        return None
    e = first(number != needed)
    words = f"expert {e} has {number[e]} tiles of {tile} rows, but needs {needed[e]}"
    return Breach(words=words, expert=e)


def weights_follow(due: Due, answer: Permuted) -> Breach | None:
    """The weight of a row is the weight of its route, bit for bit."""
    rows, found = answer.permutation.rows, answer.weights
    assert found is not None
    known = (rows >= 0) & (rows < due.num_routes)
    flat = np.append(due.routes.weights.reshape(-1), np.float32(0))
    wanted = flat[np.where(known, rows, -1)]
    wrong = known & (_bits(found) != _bits(wanted))
    if not wrong.any():
        return None
    row = first(wrong)
    route = int(rows[row])
    words = f"weights[{row}]={found[row]:.9g}, but {due.named(route)} weighs {wanted[row]:.9g}"
    return Breach(words=words, row=row, route=route)


def round_trip(due: Due, answer: Permuted) -> Breach | None:
    """What is gathered into rows and scattered back is each token, once a present route."""
    rows, top_k = answer.permutation.rows, due.routes.top_k
    tokens = rows // top_k if answer.gather is None else answer.gather
    filled = (rows != PADDING) & (tokens >= 0) & (tokens < due.routes.num_tokens)
    buffer = np.full(rows.size + 1, np.nan, np.float64)  # the last is for what is in no row
    buffer[:-1][filled] = tokens[filled]
    places = _inverted(due, rows) if answer.inverse is None else answer.inverse
    inside = (places >= 0) & (places < rows.size)
    back = buffer[np.where(inside, places, -1)]
    wrong = due.present & (back != np.arange(due.num_routes) // top_k)
    if not wrong.any():
        return None
    route = first(wrong)
    what = "the NaN of a padding row" if np.isnan(back[route]) else f"token {back[route]:.0f}"
    words = f"{due.named(route)} gets {what} back"
    row = int(places[route]) if inside[route] else None
    return Breach(words=words, row=row, route=route, expert=int(due.experts[route]))


def same(due: Due, answer: Permuted, again: Permuted) -> Breach | None:
    """Two calls put the same routes into each segment; in a stable order, into the same rows."""
    one, other = _ordered(due, answer), _ordered(due, again)
    if one.shape == other.shape and (one == other).all():
        return None
    if one.shape != other.shape:
        return Breach(words=f"{one.shape[1]} rows at first, {other.shape[1]} in a second call")
    row = first((one != other).any(axis=0))
    words = (
        f"row {row} held route {one[1, row]} at first, and route {other[1, row]} in a second call"
    )
    return Breach(words=words, row=row, expert=int(one[0, row]))


LAWS: dict[str, Law] = {
    "conserved": conserved,
    "grouped": grouped,
    "offsets": offsets,
    "counts": counts,
    "aligned": aligned,
    "padding-marked": padding_marked,
    "round-trip": round_trip,
}
"""The laws that hold for every answer, whatever its layout and its claims."""


def first_breach(due: Due, answer: Permuted) -> Breach | None:
    """Return the first breach of any law that holds for every answer."""
    found = (law(due, answer) for law in LAWS.values())
    return next((breach for breach in found if breach is not None), None)


def _ordered(due: Due, answer: Permuted) -> Ids:
    """Return experts and routes of all rows, those of an expert in order where that is free."""
    both = np.stack([answer.expert_of_row, answer.permutation.rows])
    if due.config.order == "stable":
        return both
    return both[:, np.lexsort(both[::-1])]


def _inverted(due: Due, rows: Ids) -> Ids:
    found = np.full(due.num_routes, PADDING, np.int64)
    held = np.flatnonzero((rows >= 0) & (rows < due.num_routes))
    found[rows[held]] = held
    return found


def _bits(values: Array) -> Ids:
    """Return the bits of numbers as float64, which holds those of every narrower format."""
    return values.astype(np.float64).view(np.int64)

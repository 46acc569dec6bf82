"""Selection: the K best experts of every token (docs/spec/selection.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference.formats import Ids
from moe_routing.reference.quick import at_columns

_SMALL = 2**10
"""The values of which whole rows are sorted in less time than a partition takes to begin."""


def top_k(values: npt.NDArray[np.floating[Any]], k: int) -> Ids:
    """Return ``[T, k]``: the columns of the k greatest of ``values [T, N]``, best first.

    Equal values go to the lowest column; NaN counts as -inf, so that the columns are
    distinct whatever the values are.
    """
    ranked = np.fmax(values, -np.inf)  # NaN becomes -inf
    if ranked.size <= _SMALL and k <= values.shape[1]:
        return np.argsort(-ranked, axis=1, kind="stable")[:, :k].copy()
    places = _places_of_best(ranked, k)
    order = np.argsort(-ranked.take(places), axis=1, kind="stable")
    ids: Ids = at_columns(places % values.shape[1], order)
    return ids


def top_of_each(values: npt.NDArray[np.floating[Any]], k: int, count: int) -> Ids:
    """Return ``[T, k]``: the columns of the k / count greatest of each of ``count`` equal blocks.

    All of them best first, with ties and NaN as in ``top_k``.
    """
    size = values.shape[1] // count
    blocks = values.reshape(len(values) * count, size)
    best = top_k(blocks, k // count).reshape(len(values), k)
    ids = np.sort(best + np.repeat(np.arange(count) * size, k // count), axis=1)
    found = np.fmax(np.take_along_axis(values, ids, axis=1), -np.inf)
    return np.take_along_axis(ids, np.argsort(-found, axis=1, kind="stable"), axis=1)


def _places_of_best(values: npt.NDArray[np.floating[Any]], k: int) -> Ids:
    """Return the flat positions of each row's k greatest ``values``, ascending; none is NaN.

    A partition finds the least of the k: sorting whole rows would take most of a router's time.
    """
    tokens, experts = values.shape
    least = np.partition(values, experts - k, axis=1)[:, experts - k, None]
    best = values >= least
    if np.count_nonzero(best) > k * tokens:  # ties at the cut: as many as there is room for
        above = values > least
        room = k - above.sum(axis=1)[:, None]
        ties = best & ~above
        best = above | ties & (ties.cumsum(axis=1) <= room)
    return np.flatnonzero(best).reshape(tokens, k)

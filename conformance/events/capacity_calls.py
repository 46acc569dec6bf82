"""Calls of capacities: configurations that are claimed, with slots and weights of their own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from moe_routing.implementations.drops import Drops
from moe_routing.reference import CapacityConfig
from moe_routing.reference.capacity import CAPACITY_WORDS
from moe_routing.reference.formats import Floats, Ids
from moe_routing.reference.routes import ABSENT


def configs(drops: Drops, experts: int, options: dict[str, Any]) -> Iterator[CapacityConfig]:
    """Yield configurations that ``drops`` claims, the plainest first."""
    wanted = {"factor": (0.5, 1.0, 0.25, 2.0), "minimum": (0, 1, 2)}
    wanted |= {name: (value,) for name, value in options.items()}
    axes = {
        name: [each for each in wanted.get(name, words) if each in getattr(drops, name)]
        for name, words in {**CAPACITY_WORDS, "factor": (), "minimum": ()}.items()
    }
    for values in product(*axes.values()):
        given: dict[str, Any] = dict(zip(axes, values, strict=True))
        if given["share"] != "one" or given["factor"] == int(given["factor"]):
            yield CapacityConfig(num_experts=experts, **given)


def with_slots(ids: Any, top_k: int, experts: int) -> Ids | None:
    """Return rows of ``top_k`` slots: cut, or filled with experts that a row has not."""
    if top_k > experts:
        return None
    if not len(ids):
        return np.zeros((0, top_k), np.int64)
    rows = np.array(ids, np.int64)
    for _ in range(top_k - rows.shape[1]):
        free = [next(e for e in range(experts - 1, -1, -1) if e not in row) for row in rows]
        rows = np.column_stack([rows, np.array(free, np.int64)])
    return rows[:, :top_k]


def rising(ids: Ids) -> Floats:
    """Return weights that fall along a row, and rise from token to token."""
    tokens, top_k = ids.shape
    number = np.arange(tokens)[:, None] + 1 + tokens * np.arange(top_k - 1, -1, -1)
    return np.where(ids == ABSENT, 0.0, number / 2.0 ** (int(ids.size).bit_length()))


def summing(ids: Ids) -> Floats:
    """Return weights that fall along a row, of which those that are there sum to exactly 1."""
    there = ids != ABSENT
    parts = np.arange(ids.shape[1], 0, -1) * 16 + np.arange(len(ids))[:, None] % 13
    parts = np.where(there, parts, 0)
    rest = np.where(there.any(axis=1), 1024 - parts.sum(axis=1), 0)
    parts[np.arange(len(ids)), there.argmax(axis=1)] += rest
    return parts / 1024.0

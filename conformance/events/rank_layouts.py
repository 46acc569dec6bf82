"""Layouts of calls on all ranks: where experts and tokens are, for any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moe_routing.reference import Placement
from moe_routing.reference.formats import Ids


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A call in outline: the rank of each place, the expert there, the ids, and homes of tokens."""

    rank_of: Any
    ids: Any
    home: Any
    logical: Any = None

    def placement(self, ranks: int) -> Placement:
        """Return the placement, on so many ranks."""
        rank_of = np.asarray(self.rank_of)
        logical = np.arange(rank_of.size) if self.logical is None else np.asarray(self.logical)
        return Placement(rank_of=rank_of, logical_of=logical, num_ranks=ranks)


def plain(ranks: int) -> Layout:
    """Return two experts and two tokens a rank, each token with an expert of its rank and not."""
    experts = 2 * ranks
    tokens = np.arange(2 * ranks)
    second = (tokens + (2 if ranks > 1 else 1)) % experts
    pairs = np.repeat(np.arange(ranks), 2)
    return Layout(rank_of=pairs, ids=np.stack([tokens % experts, second], axis=1), home=pairs)


Lays = Callable[[int], Layout]


def at_homes(ranks: int, home: Ids) -> Layout:
    """Return the plain layout with so many tokens, at these homes."""
    first = plain(ranks)
    ids = np.asarray(first.ids)[np.arange(len(home)) % (2 * ranks)]
    return replace(first, ids=ids, home=home)


def growing(ranks: int) -> Layout:
    """Return one token on the first rank, and one more on each of the others."""
    return at_homes(ranks, np.repeat(np.arange(ranks), np.arange(1, ranks + 1)))


def all_but(idle: int) -> Lays:
    """Return what leaves a rank without tokens, whose experts have some."""

    def laid(ranks: int) -> Layout:
        busy = [rank for rank in range(ranks) if rank != idle % ranks]
        return at_homes(ranks, np.sort(np.resize(busy, 2 * ranks)))

    return laid


def to_the_last(ranks: int) -> Layout:
    """Return the plain layout with every route to the experts of the last rank."""
    experts = 2 * ranks
    ids = np.tile([[experts - 2, experts - 1], [experts - 1, experts - 2]], (ranks, 1))
    return replace(plain(ranks), ids=ids)


def scattered(ranks: int) -> Layout:
    """Return the experts dealt out to the ranks, the last first."""
    return replace(plain(ranks), rank_of=np.arange(2 * ranks)[::-1] % ranks)


def replicated(ranks: int) -> Layout:
    """Return the plain layout with expert 0 on the last rank as well."""
    first = plain(ranks)
    logical = np.append(np.arange(2 * ranks), 0)
    return replace(first, rank_of=np.append(first.rank_of, ranks - 1), logical=logical)


def with_a_remainder(ranks: int) -> Layout:
    """Return one expert on each rank, and all that are left on the last."""
    first = plain(ranks)
    return replace(first, rank_of=np.minimum(np.arange(2 * ranks), ranks - 1))


def with_absent(ranks: int) -> Layout:
    """Return the plain layout with absent routes, and a token without any."""
    first = plain(ranks)
    ids = np.array(first.ids)
    ids[::2, 1] = -1
    ids[-1] = -1
    return replace(first, ids=ids)


def without_tokens(ranks: int) -> Layout:
    """Return the plain layout without tokens."""
    return replace(plain(ranks), ids=np.zeros((0, 2), np.int64), home=np.zeros(0, np.int64))

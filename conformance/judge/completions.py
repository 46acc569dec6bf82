"""The experts that may complete what a dense answer shows of one token, found by trying."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.later import SelectionBounds
from moe_routing.conformance.judge.selection import chosen_mask, may_select
from moe_routing.reference import Groups
from moe_routing.reference.formats import Bools, Floats, Ids

_TRIES = 2**8
"""The sets of kept groups that are tried; few groups tie."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Completion:
    """One token: what competes in it, ``later`` of one row, and, ``[E]`` each, what is known.

    ``shown`` are the experts that show, ``light`` those that may weigh 0, and ``own`` the
    reference's.
    """

    later: SelectionBounds
    shown: Bools
    light: Bools
    own: Bools

    def found(self, missing: int) -> Ids | None:
        """Return ``missing`` light experts with which what shows may be selected, if there are.

        Errors: ``JudgeError``.
        """
        config, competing = self.later.config, self.later.competing
        free = self.light & ~self.shown
        for values in self._tries(config.groups):
            order = np.lexsort((~self.own, -values, ~free))
            if config.groups is not None and config.groups.from_each:
                order = self._shares(order, config.groups.count, config.top_k)
            members = order[:missing]
            if len(members) < missing or not free[members].all():
                continue
            whole = np.concatenate([np.flatnonzero(self.shown), members])[None]
            chosen = chosen_mask(whole, config.num_experts)
            if may_select(competing, chosen, config.groups, self.later.group_format).all():
                return members
        return None

    def _tries(self, groups: Groups | None) -> Iterator[Floats]:
        """Yield what experts compete with at the least, ``[E]``, for each set of kept groups."""
        lowest = self.later.competing.lo[0]
        if groups is None or groups.from_each:
            yield lowest
            return
        size = len(lowest) // groups.count
        for kept in islice(self._kept(groups), _TRIES):
            yield np.where(np.repeat(kept, size), lowest, groups.fill)

    def _kept(self, groups: Groups) -> Iterator[Bools]:
        """Yield the sets ``[count]`` of groups that may be kept, the likeliest first.

        A group that shows is likely, and one is unlikely of which an expert competes high that
        neither shows nor may weigh 0: it would have to be selected.
        """
        certain, possible = (each[0] for each in self.later.kept_groups)
        heavy = np.where(self.shown | self.light, -np.inf, self.later.competing.lo[0])
        keys = (~_of(self.own, groups), _best(heavy, groups), ~_of(self.shown, groups))
        order = np.lexsort(keys)
        others = order[(possible & ~certain)[order]]
        for more in combinations(others, groups.kept - int(certain.sum())):
            kept = certain.copy()
            kept[list(more)] = True
            yield kept

    def _shares(self, order: Ids, count: int, top_k: int) -> Ids:
        """Return the first of ``order`` of each group that lacks some: all give as many."""
        group = np.arange(len(self.shown)) * count // len(self.shown)
        lacks = top_k // count - np.bincount(group[self.shown], minlength=count)
        parts = [order[group[order] == g][: max(0, lacks[g])] for g in range(count)]
        return np.concatenate(parts)


def _of(experts: Bools, groups: Groups) -> Bools:
    """Return the groups ``[count]`` that have one of ``experts [E]``."""
    return np.asarray(_grid(experts, groups).any(axis=1))


def _best(values: Floats, groups: Groups) -> Floats:
    """Return the greatest of each group's ``values [E]``."""
    return np.asarray(_grid(values, groups).max(axis=1))


def _grid(values: npt.NDArray[np.generic], groups: Groups) -> npt.NDArray[np.generic]:
    return values.reshape(groups.count, len(values) // groups.count)

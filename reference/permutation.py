"""Permutation: in which row of the expert-sorted buffer each route lands.

``Permutation`` is the canonical form. Everything else that libraries return (offsets in any
convention, inverse maps, gather indices, tiles) follows from it by ``permutation_maps``.
Source: ``docs/spec/permutation.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from moe_routing.reference.arrays import freeze
from moe_routing.reference.checks import require_choice, require_count, shown
from moe_routing.reference.formats import Ids
from moe_routing.reference.routes import Routes

Order = Literal["stable", "free"]
ORDERS: tuple[str, ...] = get_args(Order)

PADDING = -1
"""What a row without a route holds."""


@dataclass(frozen=True, kw_only=True)
class PermutationConfig:
    """How routes are laid out by expert.

    The rows of each of ``num_experts`` experts are a multiple of ``align``; an expert without
    routes takes ``empty_takes`` rows, 0 or ``align``. With ``order="stable"`` the routes of an
    expert keep the order of their numbers; with ``free`` they come in any. Errors:
    ``ValueError`` naming the field.
    """

    num_experts: int
    align: int = 1
    empty_takes: int = 0
    order: Order = "stable"

    def __post_init__(self) -> None:
        require_count("num_experts", self.num_experts, at_least=1)
        require_count("align", self.align, at_least=1)
        require_count("empty_takes", self.empty_takes, at_least=0)
        require_choice("order", self.order, ORDERS)
        if self.empty_takes not in (0, self.align):
            raise ValueError(
                f"Expected empty_takes to be 0 or align={self.align} but got {self.empty_takes}: "
                "an expert without routes takes no rows, or as many as one route does"
            )

    def check(self, routes: Routes) -> None:
        """Raise ``ValueError`` for the first expert id that is not below ``num_experts``."""
        routes.check_below(self.num_experts)

    def sizes(self, counts: Ids) -> Ids:
        """Return the rows that experts with ``counts`` routes take, ``[E]``."""
        rounded: Ids = -(-counts // self.align) * self.align
        return np.where(counts == 0, self.empty_takes, rounded)

    def most_rows(self, num_routes: int) -> int:
        """Return the rows that so many routes take at the most, however they fall.

        That is where as many experts as possible have one route, or one more than a multiple
        of ``align``; if empty experts take rows, where few of them have any.
        """
        fullest = {min(self.num_experts, num_routes), min(1, num_routes)}
        return max(
            self.align * (busy + (num_routes - busy) // self.align)
            + (self.num_experts - busy) * self.empty_takes
            for busy in fullest
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Permutation:
    """The canonical form of what follows the choice of experts.

    Shapes: ``rows [R]`` int64, the route in each row, -1 in a padding row; ``starts [E + 1]``
    int64, the first row of each expert's segment, padding included, and last R;
    ``counts [E]`` int64, the routes in each segment. Errors: ``ValueError`` naming the array,
    the first bad value and the rule.
    """

    rows: Ids
    starts: Ids
    counts: Ids

    def __post_init__(self) -> None:
        for name in ("rows", "starts", "counts"):
            freeze(self, {name: "T"}, integers=(name,))
        if self.starts.size != self.counts.size + 1:
            raise ValueError(
                f"Expected starts of shape [E + 1] with E={self.counts.size} "
                f"but got shape {self.starts.shape}"
            )
        self._check_starts()
        self._check_rows()
        self._check_counts()

    @classmethod
    def unchecked(cls, rows: Ids, starts: Ids, counts: Ids) -> Permutation:
        """Build a permutation that may break every rule, so as to judge it."""
        made = object.__new__(cls)
        for name, value in {"rows": rows, "starts": starts, "counts": counts}.items():
            object.__setattr__(made, name, value)
        return made

    @property
    def num_experts(self) -> int:
        """E."""
        return self.counts.size

    @property
    def num_rows(self) -> int:
        """R, padding included."""
        return self.rows.size

    @property
    def ends(self) -> Ids:
        """The row after each expert's segment, ``[E]``: inclusive offsets."""
        return self.starts[1:]

    @property
    def sizes(self) -> Ids:
        """The rows of each expert's segment, padding included, ``[E]``."""
        return np.diff(self.starts)

    def _check_starts(self) -> None:
        starts = self.starts
        if starts[0] != 0 or starts[-1] != self.rows.size:
            raise ValueError(
                f"Expected starts to go from 0 to R={self.rows.size} but got "
                f"{shown(starts.tolist())}"
            )
        if (np.diff(starts) < 0).any():
            e = int(np.argmax(np.diff(starts) < 0))
            raise ValueError(
                f"Cannot have starts[{e + 1}]={starts[e + 1]} < starts[{e}]={starts[e]}: "
                "segments follow one another"
            )

    def _check_rows(self) -> None:
        if (self.rows < PADDING).any():
            row = int(np.argmax(self.rows < PADDING))
            raise ValueError(
                f"Cannot have rows[{row}]={self.rows[row]}: a row holds a route, or {PADDING}"
            )
        routes, times = np.unique(self.rows[self.rows != PADDING], return_counts=True)
        if (times > 1).any():
            route = int(routes[np.argmax(times > 1)])
            places = np.flatnonzero(self.rows == route)[:2].tolist()
            raise ValueError(f"Cannot have route {route} in rows {places}: it has one row")

    def _check_counts(self) -> None:
        due = routes_in(self.rows, self.starts)
        if (due != self.counts).any():
            e = int(np.argmax(due != self.counts))
            raise ValueError(
                f"Cannot have counts[{e}]={self.counts[e]}: {due[e]} of its rows hold routes"
            )


def permute(config: PermutationConfig, routes: Routes) -> Permutation:
    """Return the canonical permutation of ``routes``: by expert, stable, padding last.

    Errors: ``ValueError`` for an expert id that is not below ``config.num_experts``.
    """
    config.check(routes)
    order = np.argsort(routes.experts, kind="stable")
    order = order[order.size - np.count_nonzero(routes.present) :]  # absent routes come first
    counts = np.bincount(routes.experts[order], minlength=config.num_experts).astype(np.int64)
    starts = summed(config.sizes(counts))
    rows = np.full(starts[-1], PADDING, np.int64)
    shift = np.repeat(starts[:-1] - summed(counts)[:-1], counts)
    rows[np.arange(order.size) + shift] = order
    return Permutation(rows=rows, starts=starts, counts=counts)


def realign(permutation: Permutation, config: PermutationConfig) -> Permutation:
    """Return the same routes, in the same order, with the padding that ``config`` wants.

    Errors: ``ValueError`` where ``config`` is of another number of experts.
    """
    if permutation.num_experts != config.num_experts:
        raise ValueError(
            f"Cannot have num_experts={config.num_experts} for a permutation of "
            f"{permutation.num_experts} experts"
        )
    counts, starts = permutation.counts, summed(config.sizes(permutation.counts))
    rows = np.full(starts[-1], PADDING, np.int64)
    shift = np.repeat(starts[:-1] - summed(counts)[:-1], counts)
    kept = permutation.rows[permutation.rows != PADDING]
    rows[np.arange(kept.size) + shift] = kept
    return Permutation(rows=rows, starts=starts, counts=counts)


def routes_in(rows: Ids, starts: Ids) -> Ids:
    """Return how many rows of each segment are not padding, ``[E]``."""
    before = summed(rows != PADDING)
    within = np.clip(starts, 0, rows.size)
    counted: Ids = before[within[1:]] - before[within[:-1]]
    return counted


def summed(values: Any) -> Ids:
    """Return sums of what comes before each value, and last of all of them."""
    return np.concatenate([[0], np.cumsum(values, dtype=np.int64)]).astype(np.int64)

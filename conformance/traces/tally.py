"""Counts that can be added up: of tokens by layer, by position, and the few that are shown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from moe_routing.reference.formats import Bools, Floats

BUCKETS = 16
"""The stretches of a trace that positions are counted in."""

LISTED = 10_000
"""The tokens of one cause that are listed; of more, how many there are."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A token that is shown: its ``cause``, by how much it ``missed``, and what was permitted."""

    layer: int
    token: int
    cause: str
    missed: float
    lines: tuple[str, ...]


Story = Callable[[int], tuple[str, ...]]
"""Makes the lines of an example, of a token's place in its block."""


@dataclass
class Tally:
    """What was found of the tokens of a trace, or of a stretch of it.

    ``counts`` are tokens by layer and cause, ``positions`` by cause and stretch; ``listed`` are
    the tokens of a cause, as layer and token; ``first`` and ``smallest`` examples of each.
    """

    counts: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    positions: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    listed: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    first: dict[str, Example] = field(default_factory=dict)
    smallest: dict[str, Example] = field(default_factory=dict)

    def note(self, layer: int, cause: str, count: int) -> None:
        """Count tokens of a cause that are not shown."""
        if count:
            self.counts[layer][cause] += count

    def show(
        self,
        layer: int,
        cause: str,
        where: Bools,
        *,
        start: int,
        tokens: int,
        missed: Floats | None,
        story: Story,
    ) -> None:
        """Count the tokens ``where`` a cause holds, in a block from ``start``, and keep examples.

        ``tokens`` is how many the trace has.
        """
        rows = np.flatnonzero(where)
        if not len(rows):
            return
        self.counts[layer][cause] += len(rows)
        buckets = (rows + start) * BUCKETS // tokens
        self.positions[cause].update(Counter(buckets.tolist()))
        room = LISTED - len(self.listed[cause])
        self.listed[cause] += [(layer, start + row) for row in rows[: max(room, 0)].tolist()]
        size = np.full(len(where), np.inf) if missed is None else missed
        least = int(rows[np.argmin(size[rows])])
        for kept, row, key in (
            (self.first, int(rows[0]), _place),
            (self.smallest, least, _size),
        ):
            bare = Example(
                layer=layer, token=start + row, cause=cause, missed=float(size[row]), lines=()
            )
            if cause not in kept or key(bare) < key(kept[cause]):
                kept[cause] = Example(**{**vars(bare), "lines": story(row)})

    def add(self, other: Tally) -> None:
        """Add what was found of a later stretch."""
        for layer, counts in other.counts.items():
            self.counts[layer].update(counts)
        for cause, positions in other.positions.items():
            self.positions[cause].update(positions)
        for cause, listed in other.listed.items():
            room = LISTED - len(self.listed[cause])
            self.listed[cause] += listed[: max(room, 0)]
        for kept, others, key in (
            (self.first, other.first, _place),
            (self.smallest, other.smallest, _size),
        ):
            for cause, example in others.items():
                if cause not in kept or key(example) < key(kept[cause]):
                    kept[cause] = example

    def total(self, causes: Sequence[str]) -> int:
        """Return how many tokens of all layers have one of some causes."""
        return sum(counts[cause] for counts in self.counts.values() for cause in causes)

    def of_layer(self, layer: int, causes: Sequence[str]) -> int:
        """Return the same of one layer."""
        return sum(self.counts[layer][cause] for cause in causes) if layer in self.counts else 0


def _place(example: Example) -> tuple[float, ...]:
    return example.token, example.layer


def _size(example: Example) -> tuple[float, ...]:
    return example.missed, example.token, example.layer

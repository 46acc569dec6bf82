"""Seeded cases: every choice follows from a seed that Hypothesis draws, which costs little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.choices import seeded

Made = TypeVar("Made", covariant=True)


@dataclass(frozen=True)
class Seeded(Generic[Made]):
    """Cases that ``make`` makes by a chooser. They do not shrink: reductions make them smaller."""

    make: Callable[[Choose], Made]

    def examples(self, name: str, count: int) -> Iterator[Made]:
        """Yield ``count`` cases, the n-th of which follows from ``make``, ``name`` and n alone."""
        from moe_routing.conformance.generators.strategies import steady_seeds

        for seed in steady_seeds(name, count):
            yield self.make(seeded(seed))

"""Seeded cases: every choice follows from a seed of 64 bits, which costs next to nothing."""

from __future__ import annotations

import random
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
        for number in range(count):
            yield self.make(seeded(steady_seed(name, number)))


def steady_seed(name: str, number: int) -> int:
    """Return the seed of 64 bits that follows from a name and a number alone.

    Hypothesis would draw the same of these bytes. It is not imported for that, since it takes
    as long to import as a hundred cases take to check.
    """
    return int.from_bytes(random.Random(f"{name}/{number}").randbytes(8), "big")

"""Seeded cases: every choice follows from a seed, so that drawing costs what making does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.choices import seeded

Made = TypeVar("Made", covariant=True)

_BYTES = 8  # of a seed


@dataclass(frozen=True)
class Seeded(Generic[Made]):
    """Cases that ``make`` makes by a chooser. They do not shrink: reductions make them smaller."""

    make: Callable[[Choose], Made]

    def examples(self, name: str, count: int) -> Iterator[Made]:
        """Yield ``count`` cases, the n-th of which follows from ``make``, ``name`` and n alone."""
        for number in range(count):
            stream = random.Random(f"{name}/{number}")
            yield self.make(seeded(int.from_bytes(stream.randbytes(_BYTES), "big")))

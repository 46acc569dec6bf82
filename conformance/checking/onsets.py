"""Where a failure begins: the smallest case cut down further, one size after another.

A reduction leaves out halves and quarters, so that a failure that needs 257 experts is left with
288. Here the number is found to the unit, and named where it is the number that matters: where the
case passes with one fewer, whichever is left out. Deterministic, and bounded by calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.explain.onset import Onset
from moe_routing.conformance.generators.sizes import Size
from moe_routing.reference.formats import Ids

BUDGET = 120
"""The most calls of the failing clause, over all sizes."""

ONE_FEWER = 12
"""How many ways of leaving out a single one are tried."""

Verdict = Literal["fails", "passes", "else"]
"""The result of a case: fails like the one that is cut down, passes, or something else."""

Try = Callable[[AnyCase], Verdict]


def cut_down(case: AnyCase, sizes: Sequence[Size], tried: Try) -> tuple[AnyCase, tuple[Onset, ...]]:
    """Return a case that fails alike at sizes as small as found, and the sizes it needs to."""
    cutting = _Cutting(case, tried)
    found = [cutting.onset(size) for size in sizes if size.count(case) > size.usual]
    return cutting.case, tuple(each for each in found if each is not None)


@dataclass
class _Cutting:
    """A case that is cut down: ``case`` is always one that fails."""

    case: AnyCase
    tried: Try
    calls: Iterator[int] = field(default_factory=lambda: iter(range(BUDGET)))

    def onset(self, size: Size) -> Onset | None:
        """Cut the case down to the size at which it begins to fail, and return that."""
        self._bisect(size, lambda whole, number: np.arange(number))
        self._bisect(size, lambda whole, number: np.arange(whole - number, whole))
        number = size.count(self.case)
        if number <= size.usual or not self._passes_with_one_fewer(size, number):
            return None
        return Onset(size=size.name, fails=number)

    def _bisect(self, size: Size, part: Callable[[int, int], Ids]) -> None:
        """Halve the distance between a part that fails and one that does not, down to one."""
        whole, total = self.case, size.count(self.case)
        least, most = 0, total
        while most - least > 1:
            middle = (least + most) // 2
            fails = self._try(size, whole, part(total, middle)) == "fails"
            least, most = (least, middle) if fails else (middle, most)

    def _passes_with_one_fewer(self, size: Size, number: int) -> bool:
        """Return whether leaving out any single one makes the case pass."""
        whole, step = self.case, max(1, -(-number // ONE_FEWER))
        places = sorted({*range(0, number, step), number - 1})
        return all(
            self._try(size, whole, np.delete(np.arange(number), place)) == "passes"
            for place in places
        )

    def _try(self, size: Size, whole: AnyCase, kept: Ids) -> Verdict:
        """Try a part of a case; one that fails is the case from here on."""
        if next(self.calls, None) is None:
            return "else"
        try:
            smaller = size.keep(whole, kept)
        except ValueError:
            return "else"
        verdict = self.tried(smaller)
        if verdict == "fails":
            self.case = smaller
        return verdict

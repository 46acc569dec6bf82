"""The reducer: from a case that fails to the smallest one that fails alike.

Deterministic, and bounded by calls, never by time. Each reduction proposes smaller cases,
plainest first; a proposal that still fails becomes the case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.reference.formats import Ids

BUDGET = 400
"""The most calls of the failing clause that one reduction may make."""

Reduction = Callable[[Any], Iterator[Any]]
"""Proposes smaller cases than the one it is given, the smallest first."""

OneCase = TypeVar("OneCase", bound=AnyCase)


def reduce_case(
    case: OneCase,
    reductions: Sequence[Reduction],
    still_fails: Callable[[OneCase], bool],
    *,
    preferred: Callable[[OneCase], bool] = lambda case: True,
    budget: int = BUDGET,
) -> OneCase:
    """Return the smallest case found for which ``still_fails`` holds, as it does for ``case``.

    A case that is ``preferred`` is only replaced by such ones; for another, they are tried
    first. ``still_fails`` is called ``budget`` times at most.
    """
    search = _Search(still_fails, preferred, iter(range(budget)))
    before = None
    while case is not before:  # until a pass over all reductions changes nothing
        before = case
        for reduction in reductions:
            case = search.reduced(case, reduction)
    return case


@dataclass(frozen=True)
class _Search(Generic[OneCase]):
    """One search for the smallest case; ``calls`` are those that it has left."""

    still_fails: Callable[[OneCase], bool]
    preferred: Callable[[OneCase], bool]
    calls: Iterator[int]

    def reduced(self, case: OneCase, reduction: Reduction) -> OneCase:
        """Return the case after one reduction, made as often as what it proposes fails."""
        while (smaller := self._failing(case, reduction)) is not None:
            case = smaller
        return case

    def _failing(self, case: OneCase, reduction: Reduction) -> OneCase | None:
        """Return the first smaller case that fails, while calls are left, or None."""
        tried = zip(self._worth_trying(case, reduction), self.calls, strict=False)
        return next((smaller for smaller, _ in tried if self.still_fails(smaller)), None)

    def _worth_trying(self, case: OneCase, reduction: Reduction) -> Iterator[OneCase]:
        """Yield smaller cases that are preferred, then the others where the case is none."""
        others: list[OneCase] | None = None if self.preferred(case) else []
        for smaller in reduction(case):
            if self.preferred(smaller):
                yield smaller
            elif others is not None:
                others.append(smaller)
        yield from others or ()


def subsets(count: int) -> Iterator[Ids]:
    """Yield halves, quarters and, of small counts, all but one of ``range(count)``."""
    everything = np.arange(count)
    if count > 3:
        for start, stop in ((0, count // 2), (count // 2, count)):
            yield everything[start:stop]
        for start in range(0, count, max(1, count // 4)):
            yield np.delete(everything, slice(start, start + max(1, count // 4)))
    if 1 < count <= 12:
        for i in range(count):
            yield np.delete(everything, i)


def attempt(make: Callable[..., OneCase], *given: Any, **settings: Any) -> Iterator[OneCase]:
    """Yield what ``make`` makes of the rest, unless that is no valid case."""
    try:
        made = make(*given, **settings)
    except ValueError:
        return
    yield made

"""The event registry: what an event is, and how a module registers one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import facts_of, kind_of
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities

ROWS = ((1.0, 0.25, -0.5, 2.0), (0.0, 1.5, 0.5, -1.0), (-1.0, 0.75, 2.5, 0.25))
"""Logits of three tokens for four experts: readable, exact in every dtype, without ties."""

Construct = Callable[[Capabilities], Iterable[AnyCase]]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One condition: its slug, its statement, a test for it, and a constructor of cases.

    ``occurs`` takes the facts of a case (``cases.kinds``): the ``Bounds`` of a routing case.
    A slug ``family:member`` is one of many of a kind, which ``FAMILIES`` describes. A clause
    runs the plainest case that shows the event, or, of an event that is ``series``, all of them.
    Only an event ``beyond`` the claims is shown by calls that are not claimed.
    """

    slug: str
    statement: str
    occurs: Callable[[Any], bool]
    cases: Construct
    series: bool = False
    beyond: bool = False

    def constructed(self, capabilities: Capabilities) -> AnyCase | None:
        """Return the plainest case under ``capabilities`` that shows the event, or None."""
        return next(self.shown(capabilities), None)

    def checked(self, capabilities: Capabilities) -> Iterator[AnyCase]:
        """Yield the cases that a clause runs for the event: the plainest, or the whole series."""
        yield from islice(self.shown(capabilities), None if self.series else 1)

    def shown(
        self, capabilities: Capabilities, facts: Callable[[AnyCase, Capabilities], Any] = facts_of
    ) -> Iterator[AnyCase]:
        """Yield the constructed cases that show the event, by the ``facts`` that it is read off."""
        for case in self.cases(capabilities):
            if self.occurs(facts(case, capabilities)) and self._is_for(case, capabilities):
                yield case

    def _is_for(self, case: AnyCase, capabilities: Capabilities) -> bool:
        """Return whether the case may be run: limits may be too narrow for what was made."""
        return self.beyond or kind_of(case).claimed(case, capabilities)

    @property
    def family(self) -> str | None:
        """The family of the event, or None where it stands alone."""
        name, colon, _ = self.slug.partition(":")
        return name if colon else None


EVENTS: dict[str, Event] = {}
"""Every event by slug."""

FAMILIES: dict[str, str] = {}
"""What the members of a family of events have in common, by the family's name."""


SMALL = 12
"""The members of a family that a quick run has all of."""


def members(family: str) -> tuple[str, ...]:
    """Return the slugs of the events of ``family``."""
    return tuple(slug for slug, each in EVENTS.items() if each.family == family)


def thinned(events: Sequence[Event], most: int) -> list[Event]:
    """Return events with no more than ``most`` of each large family, spread over its members.

    A family of up to ``SMALL`` is whole: its members are unlike, as scores are.
    """
    large = Counter(each.family for each in events if each.family)
    left = {name for name, size in large.items() if size > max(SMALL, most)}
    nth = Counter[str]()
    kept = []
    for each in events:
        if (name := each.family) in left:
            nth[name] += 1
            if nth[name] * most // large[name] == (nth[name] - 1) * most // large[name]:
                continue
        kept.append(each)
    return kept


def event(
    slug: str,
    statement: str,
    occurs: Callable[[Any], bool],
    *,
    series: bool = False,
    beyond: bool = False,
) -> Callable[[Construct], Construct]:
    """Register the decorated constructor as the event ``slug``.

    The constructor yields cases, the plainest first; a case that does not show the event is
    skipped, so that the constructor can be tried on every claim. Errors: ``ValueError`` for a
    slug that is taken.
    """

    def register(cases: Construct) -> Construct:
        if slug in EVENTS:
            raise ValueError(f"Cannot register event {slug!r}: the slug is taken")
        EVENTS[slug] = Event(
            slug=slug,
            statement=statement,
            occurs=occurs,
            cases=cases,
            series=series,
            beyond=beyond,
        )
        return cases

    return register


def selected(bounds: Bounds, values: np.ndarray) -> np.ndarray:
    """Return ``values [T, E]`` at the reference's ids, ``[T, K]``."""
    return np.take_along_axis(values, bounds.reference.expert_ids, axis=1)

"""Progress: what one clause has run on one adapter so far, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from moe_routing.conformance.events import Event
from moe_routing.conformance.trial.base import AnyTrial

Seen = Literal["witnessed", "unreachable", "known", "missing"]


@dataclass
class Progress:
    """The counts of a ``ClauseResult`` while it is being made."""

    constructed: int = 0
    examples: int = 0
    tokens: int = 0
    used: float = 0.0
    events: dict[str, Seen] = field(default_factory=dict)
    drawn: Counter[str] = field(default_factory=Counter)

    def note(self, event: Event, seen: Seen) -> None:
        """Note what became of the constructed case of an event, if that was not seen before."""
        self.events.setdefault(event.slug, seen)

    def begin(self, trial: AnyTrial) -> None:
        """Count a case that is about to be checked."""
        case = trial.case
        self.tokens += case.num_tokens
        self.drawn.update({f"recipe:{case.recipe}": 1, f"dtype:{case.dtype}": 1})

    def end(self, trial: AnyTrial, events: Iterable[Event]) -> None:
        """Note which events a checked case showed, and the allowance that its answer used."""
        for event in events:
            if self.events.get(event.slug) != "witnessed" and event.occurs(trial.facts):
                self.events[event.slug] = "witnessed"
        self.used = max(self.used, trial.allowance_used)

    @property
    def missing(self) -> list[str]:
        """The events that could be seen, and were not."""
        return [slug for slug, seen in self.events.items() if seen == "missing"]

    @property
    def reachable(self) -> bool:
        """Whether any event can be seen under the claims."""
        return not set(self.events.values()) <= {"unreachable"}

"""Cases of one event that show another event too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import EVENTS
from moe_routing.implementations import Capabilities


def cases_of(slug: str, capabilities: Capabilities) -> Iterator[Case]:
    """Yield the cases that the event ``slug`` of routing constructs under ``capabilities``."""
    yield from cast("Iterable[Case]", EVENTS[slug].cases(capabilities))

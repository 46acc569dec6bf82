"""Cases of one event that show another one too."""

from __future__ import annotations

from collections.abc import Iterator

from moe_routing.conformance.cases.case import Case
from moe_routing.conformance.events.registry import EVENTS
from moe_routing.implementations import Capabilities


def cases_of(slug: str, capabilities: Capabilities) -> Iterator[Case]:
    """Yield the routing calls that the event ``slug`` constructs under ``capabilities``."""
    for case in EVENTS[slug].cases(capabilities):
        if isinstance(case, Case):
            yield case

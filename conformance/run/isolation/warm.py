"""The first call: what an adapter imports late is paid for before a clause is timed."""

from __future__ import annotations

from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.events import EVENTS
from moe_routing.implementations import Adapter
from moe_routing.implementations.protocol import offers


def first_call(adapter: Adapter) -> None:
    """Route the plainest case that an adapter claims, if it has one. Errors: any of the backend."""
    claimed = adapter.capabilities()
    if offers(adapter, "route") and claimed.claims:
        case = EVENTS["any-case"].constructed(claimed)
        if case is not None:
            _ = trial_of(adapter, case, "route").native

"""The first call: what an adapter imports late is paid for before a clause is timed."""

from __future__ import annotations

from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.events import EVENTS
from moe_routing.implementations import Adapter
from moe_routing.implementations.protocol import offers

_CALLS = {"route": "any-case", "gradients": "gradient-any"}
"""The events of the plainest calls, by method: a first backward pass imports much of its own."""


def first_call(adapter: Adapter) -> None:
    """Make the plainest calls that an adapter claims, if any. Errors: any of the backend."""
    claimed = adapter.capabilities()
    for method, slug in _CALLS.items():
        if offers(adapter, method) and claimed.claims:
            case = EVENTS[slug].constructed(claimed)
            if case is not None:
                _ = trial_of(adapter, case, method).native

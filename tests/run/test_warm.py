"""The first calls: what a start makes, so that no clause pays for imports that come late."""

from __future__ import annotations

from typing import Any

from moe_routing.conformance.run.isolation.warm import first_call
from moe_routing.implementations import Capabilities, Claim, load_adapter


class Noting:
    """Answers as the reference does, and notes what was called."""

    name = "noting"

    def __init__(self, claims: tuple[Claim, ...] = Capabilities().claims) -> None:
        self.right, self.claims, self.called = load_adapter("reference"), claims, []

    def capabilities(self) -> Capabilities:
        return Capabilities(claims=self.claims)

    def route(self, *parts: Any) -> Any:
        self.called.append("route")
        return self.right.route(*parts)

    def gradients(self, *parts: Any) -> Any:
        self.called.append("gradients")
        return self.right.gradients(*parts)


def test_it_routes_once_and_goes_back_once() -> None:
    adapter = Noting()
    first_call(adapter)
    assert adapter.called == ["route", "gradients"]


def test_it_calls_nothing_that_is_not_claimed() -> None:
    adapter = Noting(claims=())
    first_call(adapter)
    assert adapter.called == []

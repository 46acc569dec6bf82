"""Events of shared experts: where they are kept, and their gate."""

from __future__ import annotations

from collections.abc import Iterator

from moe_routing.conformance.case import SharedCase
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.implementations import Capabilities


def _shared(slug: str, statement: str, **parts: object) -> None:
    @event(slug, statement, lambda b: True)
    def _(capabilities: Capabilities) -> Iterator[SharedCase]:
        yield make_shared_case(
            dtype=capabilities.dtypes[0], tokens=2, hidden=4, width=2, seed=1, **parts
        )


_shared("shared-singular", "a shared expert as shared_expert", kind="singular", gated=False)
_shared("shared-plural", "shared experts as shared_experts", kind="plural", gated=False)
_shared("shared-mlp", "a shared expert as shared_mlp", kind="mlp", gated=False)
_shared("shared-absent", "no shared expert", kind="none", gated=False)
_shared(
    "shared-gate-half-open",
    "a shared expert whose gate logit is 0",
    kind="singular",
    gated=True,
    zero_gate=True,
)

"""The reference router as an adapter: the suite must find nothing here."""

from __future__ import annotations

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.reference import (
    RouterConfig,
    RouterInputs,
    Routing,
    SharedExpertConfig,
    SharedExpertInputs,
    dispatch,
    route,
    shared_contribution,
)
from moe_routing.reference.formats import Floats


class ReferenceAdapter:
    """``moe_routing.reference`` itself."""

    name = "reference"
    wraps = "moe-routing-conformance"

    def capabilities(self) -> Capabilities:
        """Claim the whole spec; the logits returned are those routed."""
        return Capabilities(logits="routed", threads=True)

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Return the reference answer. Errors: ``ValueError`` for a bad configuration."""
        return route(RouterConfig(**vars(config)), inputs)

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Return the answer of the dispatched configuration."""
        return dispatch(config, inputs)

    def shared_experts(self, config: SharedExpertConfig, inputs: SharedExpertInputs) -> Floats:
        """Return the reference contribution."""
        return shared_contribution(config, inputs)

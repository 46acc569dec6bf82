"""A right adapter that claims as little as a test wants."""

from __future__ import annotations

from typing import Any

from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route


class Narrow:
    """Right, and claims what it is made to claim."""

    name = "narrow"

    def __init__(self, **claims: Any) -> None:
        self.claims = Capabilities(**claims)

    def capabilities(self) -> Capabilities:
        return self.claims

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        self.claims.require(config, inputs)
        return route(RouterConfig(**vars(config)), inputs)

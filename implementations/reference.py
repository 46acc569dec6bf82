"""The reference router as an adapter: the suite must find nothing here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moe_routing import reference as spec
from moe_routing.implementations.balances import Balance
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.differentiates import RouterGradients
from moe_routing.reference import (
    BalanceConfig,
    BalanceInputs,
    Padding,
    PermutationConfig,
    Recorded,
    RouterConfig,
    RouterInputs,
    Routes,
    Routing,
    SortedRoutes,
    balance,
)

_CAPABILITIES = Capabilities(claims=(Claim.whole(),), logits="routed", threads=True)


class ReferenceAdapter:
    """``moe_routing.reference`` itself: most of its functions are the methods, in float64."""

    name = "reference"
    wraps = "moe-routing-conformance"

    def capabilities(self) -> Capabilities:
        """Claim the whole spec; the logits returned are those routed."""
        return _CAPABILITIES

    dispatch = staticmethod(spec.dispatch)
    shared_experts = staticmethod(spec.shared_contribution)
    experts = staticmethod(spec.experts)
    expert_gradients = staticmethod(spec.expert_gradients)
    shard = staticmethod(spec.shard)
    drop = staticmethod(spec.drop)
    layer = staticmethod(spec.layer)

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Return the reference answer. Errors: ``ValueError`` for a bad configuration."""
        return spec.route(RouterConfig(**vars(config)), inputs)

    def gradients(
        self, config: RouterConfig, inputs: RouterInputs, cotangent: npt.NDArray[np.float32]
    ) -> RouterGradients:
        """Return the reference gradients at the reference's experts."""
        routing = self.route(config, inputs)
        found = spec.gradients(config, inputs, routing.expert_ids, cotangent)
        return RouterGradients(routing=routing, **found.arrays())

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedRoutes:
        """Return the canonical permutation, as sorted routes with all that follows from it."""
        found = spec.permute(config, routes)
        layout = spec.as_sorted_routes(found, routes, convention="starts")
        height = max(config.align, 4)
        return replace(layout, tile_experts=spec.tiles(found, height).experts, tile=height)

    def replay(self, config: RouterConfig, inputs: RouterInputs, recorded: Recorded) -> Routing:
        """Return the recorded experts, with the reference's weights or the recorded ones."""
        return spec.replay(RouterConfig(**vars(config)), inputs, recorded)

    def route_padded(self, config: RouterConfig, inputs: RouterInputs, padding: Padding) -> Routing:
        """Return the reference answer, with -1 and weights of 0 for padding."""
        return spec.route_padded(RouterConfig(**vars(config)), inputs, padding)

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Return the reference's counts, losses, gradient and bias, in float64."""
        evaluated = config.mode == "eval"
        return Balance(
            counts=balance.expert_counts(inputs) * (not evaluated),
            aux_loss=balance.aux_loss(config, inputs),
            aux_gradient=balance.aux_gradient(config, inputs),
            z_loss=balance.z_loss(config, inputs),
            bias=balance.updated_bias(config, inputs),
        )

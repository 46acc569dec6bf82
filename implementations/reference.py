"""The reference router as an adapter: the suite must find nothing here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.balances import Balance
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.differentiates import RouterGradients
from moe_routing.reference import (
    BalanceConfig,
    BalanceInputs,
    CapacityConfig,
    ExpertGradients,
    ExpertsConfig,
    ExpertsInputs,
    LayerConfig,
    LayerInputs,
    LayerResult,
    Padding,
    PermutationConfig,
    Placement,
    Recorded,
    RouterConfig,
    RouterInputs,
    Routes,
    Routing,
    SharedExpertConfig,
    SharedExpertInputs,
    SortedRoutes,
    as_sorted_routes,
    balance,
    dispatch,
    drop,
    expert_gradients,
    experts,
    gradients,
    layer,
    permute,
    replay,
    route,
    route_padded,
    shard,
    shared_contribution,
    tiles,
)
from moe_routing.reference.formats import Floats

_CAPABILITIES = Capabilities(claims=(Claim.whole(),), logits="routed", threads=True)


class ReferenceAdapter:
    """``moe_routing.reference`` itself."""

    name = "reference"
    wraps = "moe-routing-conformance"

    def capabilities(self) -> Capabilities:
        """Claim the whole spec; the logits returned are those routed."""
        return _CAPABILITIES

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Return the reference answer. Errors: ``ValueError`` for a bad configuration."""
        return route(RouterConfig(**vars(config)), inputs)

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Return the answer of the dispatched configuration."""
        return dispatch(config, inputs)

    def shared_experts(self, config: SharedExpertConfig, inputs: SharedExpertInputs) -> Floats:
        """Return the reference contribution."""
        return shared_contribution(config, inputs)

    def gradients(
        self, config: RouterConfig, inputs: RouterInputs, cotangent: npt.NDArray[np.float32]
    ) -> RouterGradients:
        """Return the reference gradients at the reference's experts."""
        routing = self.route(config, inputs)
        found = gradients(config, inputs, routing.expert_ids, cotangent)
        return RouterGradients(routing=routing, **found.arrays())

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedRoutes:
        """Return the canonical permutation, as sorted routes with all that follows from it."""
        found = permute(config, routes)
        layout = as_sorted_routes(found, routes, convention="starts")
        height = max(config.align, 4)
        return replace(layout, tile_experts=tiles(found, height).experts, tile=height)

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Floats:
        """Return the weighted sum of the chosen experts' outputs, in float64."""
        return experts(config, inputs)

    def expert_gradients(
        self, config: ExpertsConfig, inputs: ExpertsInputs, cotangent: npt.NDArray[np.float32]
    ) -> ExpertGradients:
        """Return the gradients of the chosen experts, in float64."""
        return expert_gradients(config, inputs, cotangent)

    def replay(self, config: RouterConfig, inputs: RouterInputs, recorded: Recorded) -> Routing:
        """Return the recorded experts, with the reference's weights or the recorded ones."""
        return replay(RouterConfig(**vars(config)), inputs, recorded)

    def shard(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Floats:
        """Return what a rank adds to that sum, in float64."""
        return shard(config, inputs, placement, rank)

    def drop(self, config: CapacityConfig, routes: Routes) -> Routing:
        """Return what the reference keeps, and its weights in float64."""
        return drop(config, routes)

    def route_padded(self, config: RouterConfig, inputs: RouterInputs, padding: Padding) -> Routing:
        """Return the reference answer, with -1 and weights of 0 for padding."""
        return route_padded(RouterConfig(**vars(config)), inputs, padding)

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

    def layer(self, config: LayerConfig, inputs: LayerInputs) -> LayerResult:
        """Return the output of the reference's layer, in float64, and its routing."""
        return layer(config, inputs)

"""Megatron-Core's functions of a routing map: its permutation, and its limit of tokens."""

from __future__ import annotations

from moe_routing.implementations.drops import Drops
from moe_routing.implementations.layouts import RoutingMap
from moe_routing.implementations.megatron_modules import maps_of, moe_utils
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.permutes import Permutes
from moe_routing.reference import CapacityConfig, PermutationConfig, Routes, SortedTokens

PERMUTES = Permutes(align=(1,), empty_takes=("nothing",), repeats=(False,))
# Of no minimum: ``get_capacity`` has one, but what calls it gives none.
DROPS = Drops(
    share=("routes",),
    rounding=("up",),
    minimum=(0,),
    zero=("nothing",),
    order=("token", "weight"),
    survivors=("kept",),
)
_POLICIES = {"token": "position", "weight": "probs"}


class MegatronPermute(OnDevice):
    """``permute``, which sorts tokens by their expert."""

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedTokens:
        """Call it with a routing map. Errors: ``Unsupported``, ``BackendMissing``."""
        PERMUTES.require(config, routes)
        probs, routing_map = maps_of(routes, config.num_experts, self.device)
        tokens = probs.new_zeros((routes.num_tokens, 1))
        _, permuted, order = moe_utils().permute(tokens, routing_map, probs)
        return SortedTokens(tokens=order, counts=routing_map.sum(dim=0), weights=permuted)


class MegatronDropping(OnDevice):
    """``apply_router_token_dropping``, by the position of a token or by its weight."""

    def drop(self, config: CapacityConfig, routes: Routes) -> RoutingMap:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        DROPS.require(config, routes)
        probs, routing_map = moe_utils().apply_router_token_dropping(
            *maps_of(routes, config.num_experts, self.device),
            router_topk=routes.top_k,
            capacity_factor=config.factor,
            drop_policy=_POLICIES[config.order],
        )
        return RoutingMap(probs=probs, routing_map=routing_map)

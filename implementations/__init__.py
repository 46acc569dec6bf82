"""Implementations: the adapter protocol, and the adapters of real routing backends."""

from moe_routing.implementations.balances import Balance, Balances
from moe_routing.implementations.capabilities import (
    Capabilities,
    Numerics,
    Unsupported,
)
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.common import NothingInCommon, in_common
from moe_routing.implementations.composes import Composes
from moe_routing.implementations.computes import Computes
from moe_routing.implementations.differentiates import Differentiates, RouterGradients
from moe_routing.implementations.drops import Drops
from moe_routing.implementations.foreign_arrays import array_inputs, as_numpy
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.layouts import (
    DenseRouting,
    FlatRouting,
    RoutingMap,
)
from moe_routing.implementations.limits import Limits
from moe_routing.implementations.loading import AdapterError, adapter_of
from moe_routing.implementations.pads import Pads
from moe_routing.implementations.permitted import ANY, POSITIVE
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.probing import probed_routes, stacked_routes, unit_rows
from moe_routing.implementations.process import ProcessAdapter
from moe_routing.implementations.promises import Promises
from moe_routing.implementations.protocol import (
    Adapter,
    BackendLost,
    BackendMissing,
    BalancesExperts,
    Closes,
    DifferentiatesExperts,
    DifferentiatesOnRanks,
    DifferentiatesRoutes,
    Dispatches,
    DropsRoutes,
    PermutesRoutes,
    Prepares,
    ReplaysRoutes,
    RoutesPadded,
    RoutesTokens,
    RunsExperts,
    RunsLayers,
    RunsOnRank,
    RunsOnRanks,
    ShardsExperts,
    SharesExperts,
)
from moe_routing.implementations.registry import (
    expand,
    find_adapter,
    is_shipped,
    load_adapter,
    load_registered,
    out_of_scope,
    registered,
    shipped_known,
)
from moe_routing.implementations.replays import Replays
from moe_routing.implementations.shards import Shards, shard_of_experts
from moe_routing.implementations.tensors import (
    TorchInputs,
    leaf,
    parameter,
    torch_experts_inputs,
    torch_inputs,
    torch_layer_inputs,
    torch_shared_inputs,
    torch_tensor,
    without_graph,
)
from moe_routing.implementations.torch_expert_gradients import (
    torch_expert_gradients,
    torch_rank_gradients,
)
from moe_routing.implementations.torch_gradients import torch_gradients
from moe_routing.implementations.torch_replay import FORCED, torch_replay

__all__ = [
    "ANY",
    "FORCED",
    "POSITIVE",
    "Adapter",
    "AdapterError",
    "BackendLost",
    "BackendMissing",
    "Balance",
    "Balances",
    "BalancesExperts",
    "Capabilities",
    "Claim",
    "Closes",
    "Composes",
    "Computes",
    "DenseRouting",
    "Differentiates",
    "DifferentiatesExperts",
    "DifferentiatesOnRanks",
    "DifferentiatesRoutes",
    "Dispatches",
    "Drops",
    "DropsRoutes",
    "FlatRouting",
    "FromTwo",
    "GroupRule",
    "Limits",
    "NothingInCommon",
    "Numerics",
    "Pads",
    "Permutes",
    "PermutesRoutes",
    "Prepares",
    "ProcessAdapter",
    "Promises",
    "Replays",
    "ReplaysRoutes",
    "RouterGradients",
    "RoutesPadded",
    "RoutesTokens",
    "RoutingMap",
    "RunsExperts",
    "RunsLayers",
    "RunsOnRank",
    "RunsOnRanks",
    "Shards",
    "ShardsExperts",
    "SharesExperts",
    "TorchInputs",
    "Unsupported",
    "adapter_of",
    "array_inputs",
    "as_numpy",
    "expand",
    "find_adapter",
    "in_common",
    "is_shipped",
    "leaf",
    "load_adapter",
    "load_registered",
    "out_of_scope",
    "parameter",
    "probed_routes",
    "registered",
    "shard_of_experts",
    "shipped_known",
    "stacked_routes",
    "torch_expert_gradients",
    "torch_experts_inputs",
    "torch_gradients",
    "torch_inputs",
    "torch_layer_inputs",
    "torch_rank_gradients",
    "torch_replay",
    "torch_shared_inputs",
    "torch_tensor",
    "unit_rows",
    "without_graph",
]

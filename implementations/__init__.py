"""Implementations: the adapter protocol, and the adapters of real routing backends."""

from moe_routing.implementations.capabilities import (
    Capabilities,
    Limits,
    Numerics,
    Unsupported,
)
from moe_routing.implementations.claims import ANY, Claim, GroupRule
from moe_routing.implementations.layouts import FlatRouting, RoutingMap
from moe_routing.implementations.protocol import (
    Adapter,
    BackendMissing,
    Dispatches,
    Prepares,
    SharesExperts,
)
from moe_routing.implementations.registry import (
    AdapterError,
    expand,
    find_adapter,
    load_adapter,
    out_of_scope,
    registered,
    shipped_known,
)
from moe_routing.implementations.tensors import (
    TorchInputs,
    torch_inputs,
    torch_shared_inputs,
    torch_tensor,
)

__all__ = [
    "ANY",
    "Adapter",
    "AdapterError",
    "BackendMissing",
    "Capabilities",
    "Claim",
    "Dispatches",
    "FlatRouting",
    "GroupRule",
    "Limits",
    "Numerics",
    "Prepares",
    "RoutingMap",
    "SharesExperts",
    "TorchInputs",
    "Unsupported",
    "expand",
    "find_adapter",
    "load_adapter",
    "out_of_scope",
    "registered",
    "shipped_known",
    "torch_inputs",
    "torch_shared_inputs",
    "torch_tensor",
]

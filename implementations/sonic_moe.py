"""sonic-moe's Triton kernels that sort routes by expert, and its experts where QuACK is there."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from moe_routing.implementations import sonic_moe_experts
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.protocol import require_gpu
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import (
    ExpertsConfig,
    ExpertsInputs,
    PermutationConfig,
    Routes,
    SortedRoutes,
)

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "python -m pip install --no-deps sonic-moe==0.1.2.post1"

_KERNELS = "sonicmoe.functional.triton_kernels"
_PERMUTES = Permutes(align=(1,), empty_takes=("nothing",), absent=(False,))


@cache
def _module() -> ModuleType:
    return lone_module(_KERNELS, install=INSTALL, real=(f"{_KERNELS}.bitmatrix",))


class SonicMoe:
    """``TC_topk_router_metadata_triton`` and ``moe_general_routing_inputs``.

    The first writes into arrays that its caller makes. The second sorts the routes with another
    kernel, since a token may have any number of them, and needs QuACK and CuTe.
    """

    name = "sonic-moe"
    wraps = "sonic-moe"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        runs = sonic_moe_experts.runs_experts()
        self.methods = ("permute", "experts") if runs else ("permute",)
        self._capabilities = Capabilities(
            permutes=_PERMUTES, computes=sonic_moe_experts.COMPUTES, dtypes=sonic_moe_experts.DTYPES
        )

    def capabilities(self) -> Capabilities:
        """Claim a stable sort without padding, and gated experts in 16 bits."""
        return self._capabilities

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedRoutes:
        """Call the function on arrays of -7. Errors: ``Unsupported``, ``BackendMissing``."""
        _PERMUTES.require(config, routes)
        require_gpu(self.name, self.device)
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device).int()
        experts, rows = config.num_experts, ids.numel()
        sizes = (experts, experts + 1, rows, rows, rows)
        counts, starts, gather, order, inverse = (ids.new_full((size,), -7) for size in sizes)
        _module().TC_topk_router_metadata_triton(
            ids, experts, counts, starts, gather, order, inverse
        )
        inverse = inverse.reshape(ids.shape)
        return SortedRoutes(
            routes=order, starts=starts, counts=counts, inverse=inverse, gather=gather
        )

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Call the second function. Errors: ``Unsupported``, ``BackendMissing``."""
        sonic_moe_experts.COMPUTES.require(config, inputs)
        require_gpu(self.name, self.device)
        return sonic_moe_experts.experts(config, inputs, self.device)

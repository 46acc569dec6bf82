"""Liger Kernel's fused MoE: how it sorts routes by expert, and its experts, in Triton."""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.computes import Computes
from moe_routing.implementations.experts.adapter import run
from moe_routing.implementations.experts.models import MODELS, USUAL
from moe_routing.implementations.experts.unpacking import Named, unpacked
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.protocol import require_gpu
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.implementations.torch_expert_gradients import torch_expert_gradients
from moe_routing.reference import (
    ExpertsConfig,
    ExpertsInputs,
    PermutationConfig,
    Routes,
    SortedRoutes,
)

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "python -m pip install --no-deps liger-kernel==0.8.5"

_REAL = ("liger_kernel.ops.fused_moe_kernels", "liger_kernel.ops.utils", "liger_kernel.utils")
_PERMUTES = Permutes(align=(1,), empty_takes=("nothing",), absent=(False,))
_COMPUTES = Computes(
    activations=("silu",),
    gated=(True,),
    biases=(False,),
    weight_on=("output",),
    absent=(False,),
    products="tf32",
    hidden_multiple_of=16,
    width_multiple_of=32,
)


@cache
def _module() -> ModuleType:
    os.environ.setdefault("LIGER_FUSED_MOE_AUTOTUNE", "0")  # else a first call takes a minute
    return lone_module("liger_kernel.ops.fused_moe", install=INSTALL, real=_REAL)


class LigerMoe(OnDevice):
    """``compute_routing_metadata``, and ``LigerFusedMoEFunction`` forward and backward.

    Each H and F is a compilation of its own: few are claimed.
    """

    name = "liger"
    wraps = "liger-kernel"
    claimed = Capabilities(permutes=_PERMUTES, computes=_COMPUTES)

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedRoutes:
        """Call ``compute_routing_metadata``. Errors: ``Unsupported``, ``BackendMissing``."""
        _PERMUTES.require(config, routes)
        require_gpu(self.name, self.device)
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device)
        found = _module().compute_routing_metadata(ids.int(), config.num_experts)
        counts, starts, gather, order, inverse = found[:5]
        inverse = inverse.reshape(ids.shape)
        return SortedRoutes(
            routes=order, starts=starts, counts=counts, inverse=inverse, gather=gather
        )

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Call ``LigerFusedMoEFunction``. Errors: as ``permute``."""
        _COMPUTES.require(config, inputs)
        require_gpu(self.name, self.device)
        fused, module = _module().LigerFusedMoEFunction, self._built(config, inputs)
        weights = module.gate_up_proj, module.down_proj

        def call(_: Any, hidden: Tensor, ids: Tensor, scores: Tensor) -> Any:
            return fused.apply(hidden, *weights, ids.int(), scores)

        return run(call, None, inputs, self.device)

    def _built(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Any:
        return MODELS[USUAL].build(config, inputs, self.device)

    expert_gradients = torch_expert_gradients

    def unpacked(self, inputs: ExpertsInputs, found: Named) -> Named:
        """Return gradients by the names of ``inputs``, from those of gate and up in one."""
        return unpacked(inputs, found)

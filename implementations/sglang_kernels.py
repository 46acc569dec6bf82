"""SGLang's routing kernels in Triton, which need a GPU."""

from __future__ import annotations

from functools import cache
from types import ModuleType

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import RouterConfig, Routing

INSTALL = (
    "python -m pip install --no-deps --target sglang sglang==0.5.23 "
    "&& export PYTHONPATH=$PWD/sglang"
)
KERNELS = Family("sglang", "sglang", needs_gpu=True)

_FEW = Limits(experts=(8, 256), top_k=(1, 8))
"""Each number of experts and of slots is a compilation of its own."""


_OPS = "sglang.kernels.ops.moe"


@cache
def _module(name: str) -> ModuleType:
    return lone_module(f"{_OPS}.{name}", install=INSTALL)


@KERNELS.function(Claim.of_preset("gemma4_text", input_norm=(False,)), takes="logits", limits=_FEW)
def gemma4_fused_routing(config: RouterConfig, given: TorchInputs) -> Routing:
    """``gemma4_fused_routing``: with a scale for every expert."""
    logits, scale = given.logits, given.per_expert_scale
    assert logits is not None, "it takes logits"
    scale = logits.new_ones(config.num_experts) if scale is None else scale
    weights, ids = _module("gemma4_routing").gemma4_fused_routing(logits, scale, config.top_k)
    return Routing(weights=weights, expert_ids=ids)

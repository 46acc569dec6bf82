"""vLLM's router with fused shared experts, in plain torch as it runs on GPUs of AMD."""

from __future__ import annotations

from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.implementations.vllm_kernels import INSTALL
from moe_routing.reference import Renormalize, RouterConfig, Routing, SharedSlots

SHARED = Family("vllm", "vllm", on_any_device=True)

_NAME = "vllm.model_executor.layers.fused_moe.router.fused_topk_bias_router"
_AXES: dict[str, Any] = {
    "selection_bias": ("none", "gate"),
    "renormalize": (None, Renormalize()),
    "scale": ANY,
    "shared_slots": (SharedSlots(), SharedSlots(weight=0.4), SharedSlots(count=2)),
    "gate_dtype": ("float32",),
}
"""Scores are in the dtype of the logits; models that have the slots give float32."""


@cache
def _module() -> ModuleType:
    """Import the router; its choice by platform is that of AITER, whose kernels are not there."""
    module = lone_module(_NAME, install=INSTALL, real=("vllm.envs",))
    vars(module)["rocm_aiter_ops"] = SimpleNamespace(is_fused_moe_enabled=lambda: True)
    return module


def _routed(config: RouterConfig, given: TorchInputs) -> Routing:
    """Call ``FusedTopKBiasRouter._compute_routing``, which adds the slots, on its settings."""
    shared, bias = config.shared_slots, given.selection_bias
    assert shared is not None, "claimed are shared slots alone"
    router = SimpleNamespace(
        top_k=config.top_k,
        global_num_experts=config.num_experts,
        scoring_func=config.score,
        e_score_correction_bias=bias if bias is None else SimpleNamespace(data=bias),
        renormalize=config.renormalize is not None,
        routed_scaling_factor=config.scale,
        _hash_indices_table=None,
        bias_vl=None,
        image_sentinel_lo=0,
        num_fused_shared_experts=shared.count,
        shared_expert_weight=shared.weight,
    )
    route = _module().FusedTopKBiasRouter._compute_routing
    weights, ids = route(router, given.logits, given.logits, None)
    return Routing(weights=weights, expert_ids=ids)


@SHARED.function(Claim.plain(**_AXES), takes="logits")
def softmax_shared(config: RouterConfig, given: TorchInputs) -> Routing:
    """Softmax, with a bias or without."""
    return _routed(config, given)


@SHARED.function(
    Claim.plain(score=("sigmoid",), **_AXES),
    takes="logits",
    limits=Limits(experts=range(257, 4097)),
)
def sigmoid_shared(config: RouterConfig, given: TorchInputs) -> Routing:
    """Sigmoid, with a bias or without, of more experts than AITER has a kernel for."""
    return _routed(config, given)

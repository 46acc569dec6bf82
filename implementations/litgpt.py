"""LitGPT's routers: the block of Mixtral and Qwen3, and the router of DeepSeek-V3."""

from __future__ import annotations

from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.probing import torch_routes
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = "python -m pip install --no-deps litgpt==0.5.13"
FAMILY = Family("litgpt", "litgpt", on_any_device=True)


@cache
def _module() -> ModuleType:
    return lone_module("litgpt.model", install=INSTALL)


@FAMILY.function(
    Claim.of_preset("mixtral", weights_dtype=("input",)),
    limits=Limits(max_experts=64, max_tokens=64),
)
def moe(config: RouterConfig, given: TorchInputs) -> Any:
    """``LLaMAMoE``, whose experts are probed."""
    from torch.nn import functional as F

    settings = {"n_expert": config.num_experts, "n_expert_per_token": config.top_k}
    said = SimpleNamespace(**settings, routed_scaling_factor=config.scale)
    said.n_expert_groups = said.n_shared_expert = None

    def run(experts: Any) -> Any:
        block = SimpleNamespace(
            config=said, experts=experts, gate=lambda x: F.linear(x, given.gate_weight)
        )
        return _module().LLaMAMoE.forward(block, given.hidden[None])[0]

    return torch_routes(run, num_experts=config.num_experts, top_k=config.top_k)


@FAMILY.function(
    Claim.of_preset("deepseek_v3", renormalize=(None, Renormalize(eps=1e-20)), scale=(1.0,)),
    limits=Limits(min_group_size=2),
)
def grouped_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``GroupedTopkRouter``."""
    import torch

    groups = config.groups
    assert groups is not None, "claimed are groups alone"
    settings = {"n_expert": config.num_experts, "n_expert_per_token": config.top_k}
    settings |= {"n_expert_groups": groups.count, "n_topk_groups": groups.kept}
    settings |= {"n_topk_scores_per_group": groups.top, "n_embd": given.hidden.shape[1]}
    said = SimpleNamespace(**settings, norm_topk_prob=config.renormalize is not None)
    with torch.device(given.hidden.device):
        router = _module().GroupedTopkRouter(said)
    router.weight.data = given.gate_weight
    if given.selection_bias is not None:
        router.e_score_correction_bias = given.selection_bias
    weights, ids = router(given.hidden)
    return Routing(weights=weights, expert_ids=ids)


MEMBERS = FAMILY.members
OUT_OF_SCOPE: dict[str, str] = {}

"""Unsloth's routers in plain torch: those that its patches give to models of transformers."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.promises import SORTED
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = "python -m pip install --no-deps unsloth_zoo==2026.10.9"
FAMILY = Family("unsloth-zoo", "unsloth-zoo", on_any_device=True)

_BEST_TWO = GroupRule(top=(2,), fill=(-math.inf, 0.0))
_SIGMOID: dict[str, Any] = {
    "score": ("sigmoid",),
    "groups": (None, _BEST_TWO),
    "renormalize": (None, Renormalize(eps=1e-20)),
    "selection_bias": ("none", "gate"),
}


@cache
def _module(name: str, *real: str) -> ModuleType:
    return lone_module(f"unsloth_zoo.temporary_patches.{name}", install=INSTALL, real=real)


@FAMILY.function(
    Claim.plain(renormalize=(None, Renormalize()), scale=ANY),
    Claim.plain(score=("identity",), weights_from=("softmax_of_selected",), scale=ANY),
    Claim.plain(**_SIGMOID, scale=ANY),
    takes="logits",
    limits=Limits(min_group_size=2),
    promises=SORTED,
)
def moe_router_reference(config: RouterConfig, given: TorchInputs) -> Routing:
    """``moe_router_reference``, the eager form of its fused router, in its three modes."""
    modes = {"softmax": "softmax_topk", "identity": "topk_softmax", "sigmoid": "sigmoid"}
    mode, groups = modes[config.score], config.groups
    others: dict[str, Any] = {"bias": given.selection_bias}
    if groups:
        others |= {"n_group": groups.count, "topk_group": groups.kept}
        others["mask_zero"] = groups.fill == 0.0
    route = _module("moe_router_triton").moe_router_reference
    norm = config.renormalize is not None
    weights, ids = route(
        given.logits, config.top_k, mode, renorm=norm, scale=config.scale, **others
    )
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(Claim.plain(renormalize=(None, Renormalize())), takes="logits", promises=SORTED)
def route_softmax_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``_route_softmax_topk``: Qwen3-MoE, Mixtral, OLMoE."""
    block = SimpleNamespace(norm_topk_prob=config.renormalize is not None)
    module: Any = _module("moe_grouped_modulelist")
    module._fused_route_or_none = lambda *_: None  # a Triton kernel, off unless it is asked for
    weights, ids = module._route_softmax_topk(block, given.logits, config.top_k)
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(Claim.of_preset("gpt_oss", scores_dtype=("float32",)), promises=SORTED)
def gpt_oss(config: RouterConfig, given: TorchInputs) -> Routing:
    """``moe_router_forward`` of gpt-oss."""
    router = SimpleNamespace(weight=given.gate_weight, bias=given.gate_bias, top_k=config.top_k)
    router.hidden_dim = given.hidden.shape[1]
    scores, ids = _module("gpt_oss", "unsloth_zoo.utils").moe_router_forward(router, given.hidden)
    return Routing(weights=scores.gather(1, ids), expert_ids=ids)


MEMBERS = FAMILY.members
OUT_OF_SCOPE = {
    "moe_router": "it is a Triton kernel, which needs a GPU",
    "llama4": "its block weighs what goes into its experts, with the router of transformers",
}

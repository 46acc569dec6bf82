"""LMDeploy's routers in plain torch, each called as it is with given logits."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType, SimpleNamespace

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = "python -m pip install --no-deps lmdeploy"
FAMILY = Family("lmdeploy", "lmdeploy")


@cache
def _module(name: str) -> ModuleType:
    return lone_module(f"lmdeploy.pytorch.backends.default.{name}", install=INSTALL)


@FAMILY.function(
    Claim.plain(
        score=("sigmoid", "softmax"),
        groups=(GroupRule(top=(2,), fill=(-math.inf,)),),
        selection_bias=("gate",),
        renormalize=(None, Renormalize(eps=1e-20)),
        scale=ANY,
    ),
    takes="logits",
    dtypes=("float32",),
    limits=Limits(min_group_size=2),
)
def noaux_tc(config: RouterConfig, given: TorchInputs) -> Routing:
    """``DefaultRouterNoauxTCImpl``: DeepSeek-V3, GLM-4.5."""
    groups = config.groups
    assert groups is not None, "claimed are groups alone"
    module = _module("moe_router")
    sizes = {"n_group": groups.count, "topk_group": groups.kept, "top_k": config.top_k}
    router = SimpleNamespace(
        **sizes, scoring_func=config.score, n_routed_experts=config.num_experts
    )
    router.renormalize, router.router_n_groups = config.renormalize is not None, -1
    router.routed_scaling_factor, impl = config.scale, module.DefaultRouterNoauxTCImpl
    for name in ("_forward_default", "renorm"):
        setattr(router, name, getattr(impl, name).__get__(router))
    weights, ids = impl.forward(router, given.logits, given.selection_bias)
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(Claim.plain(), takes="logits")
def softmax_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``DefaultSoftmaxTopKImpl``: the Qwens and Mixtral."""
    module = _module("moe")
    router = SimpleNamespace(top_k=config.top_k, dim=-1, n_groups=-1)
    weights, ids = module.DefaultSoftmaxTopKImpl.forward(router, given.logits)
    return Routing(weights=weights, expert_ids=ids)


MEMBERS = FAMILY.members
OUT_OF_SCOPE: dict[str, str] = {}

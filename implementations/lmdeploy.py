"""LMDeploy's routers in plain torch, each called as it is with given logits."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.functions import Family, shares_of
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = "python -m pip install --no-deps lmdeploy"
FAMILY = Family("lmdeploy", "lmdeploy")

_BIASED: dict[str, Any] = {
    "score": ("sigmoid", "softmax"),
    "selection_bias": ("gate",),
    "renormalize": (None, Renormalize(eps=1e-20)),
    "scale": ANY,
}


@cache
def _module(name: str) -> ModuleType:
    real = [f"lmdeploy.pytorch.backends.{part}" for part in ("moe", "base")]
    return lone_module(f"lmdeploy.pytorch.backends.default.{name}", install=INSTALL, real=real)


@FAMILY.function(
    Claim.plain(groups=(GroupRule(top=(2,), fill=(-math.inf,)),), **_BIASED),
    takes="logits",
    dtypes=("float32",),
    limits=Limits(min_group_size=2),
)
def noaux_tc(config: RouterConfig, given: TorchInputs) -> Routing:
    """``DefaultRouterNoauxTCImpl``: DeepSeek-V3, GLM-4.5."""
    return _noaux_tc(config, given, -1)


@FAMILY.function(
    Claim.plain(groups=(GroupRule(from_each=(True,)),), **_BIASED),
    takes="logits",
    dtypes=("float32",),
)
def noaux_tc_from_each(config: RouterConfig, given: TorchInputs) -> Routing:
    """``DefaultRouterNoauxTCImpl`` with ``router_n_groups``."""
    return _noaux_tc(config, given, shares_of(config))


def _noaux_tc(config: RouterConfig, given: TorchInputs, n_groups: int) -> Routing:
    groups = config.groups
    assert groups is not None, "claimed are groups alone"
    impl = _module("moe_router").DefaultRouterNoauxTCImpl
    router = impl(
        config.score,
        config.top_k,
        groups.count,
        groups.kept,
        config.num_experts,
        config.scale,
        renormalize=config.renormalize is not None,
        router_n_groups=n_groups,
    )
    weights, ids = router.forward(given.logits, given.selection_bias)
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(Claim.plain(groups=(None, GroupRule(from_each=(True,)))), takes="logits")
def softmax_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``DefaultSoftmaxTopKImpl``: the Qwens and Mixtral, with ``router_n_groups`` or without."""
    groups = -1 if config.groups is None else config.groups.count
    router = _module("moe").DefaultSoftmaxTopKImpl(config.top_k, n_groups=groups)
    weights, ids = router.forward(given.logits)
    return Routing(weights=weights, expert_ids=ids)


KERNELS = Family("lmdeploy", "lmdeploy", needs_gpu=True)
_ROWS: dict[str, Any] = {"takes": "logits", "layouts": ("contiguous",), "dtypes": ("float32",)}
_V3: dict[str, Any] = {
    "score": ("sigmoid",),
    "selection_bias": ("gate",),
    "renormalize": (Renormalize(eps=1e-20),),
    "scale": ANY,
}


@cache
def _kernel(name: str) -> ModuleType:
    return lone_module(f"lmdeploy.pytorch.kernels.cuda.moe.{name}", install=INSTALL)


@KERNELS.function(
    Claim.plain(groups=(GroupRule(top=(2,), fill=(-math.inf,)),), **_V3),
    **_ROWS,
    limits=Limits(
        min_tokens=1,
        experts=(256,),
        top_k=(8,),
        max_groups=8,
        min_group_size=32,
        max_kept_groups=4,
    ),
)
def fused_noaux_tc(config: RouterConfig, given: TorchInputs) -> Routing:
    """``fused_noaux_tc_routing``, in Triton: DeepSeek-V3."""
    groups = config.groups
    assert groups is not None, "claimed are groups alone"
    weights, ids = _kernel("route_noaux_tc").fused_noaux_tc_routing(
        given.logits,
        given.selection_bias,
        num_experts=config.num_experts,
        n_group=groups.count,
        topk_group=groups.kept,
        top_k=config.top_k,
        routed_scaling_factor=config.scale,
    )
    return Routing(weights=weights, expert_ids=ids)


@KERNELS.function(
    Claim.plain(**_V3), **_ROWS, limits=Limits(min_tokens=1, experts=(192,), top_k=(8,))
)
def fused_single_group(config: RouterConfig, given: TorchInputs) -> Routing:
    """``fused_single_group_topk_router``, in Triton, of 192 experts' sigmoids."""
    assert given.logits is not None, "it takes logits"
    weights, ids = _kernel("route_single_group").fused_single_group_topk_router(
        given.logits.sigmoid(),
        given.selection_bias,
        num_experts=config.num_experts,
        top_k=config.top_k,
        routed_scaling_factor=config.scale,
    )
    return Routing(weights=weights, expert_ids=ids)


NEEDS_GPU = KERNELS.members
MEMBERS = (*FAMILY.members, *NEEDS_GPU)
OUT_OF_SCOPE: dict[str, str] = {}


def __getattr__(name: str) -> Any:
    return KERNELS.made(name)

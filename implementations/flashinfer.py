"""FlashInfer's routing kernels, compiled from the wheel's own sources at their first call."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType
from typing import Any

from moe_routing.implementations.capabilities import Limits, Numerics
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = (
    "python -m pip install --no-deps flashinfer-python==0.7.4 "
    "&& python -m pip install apache-tvm-ffi nvidia-ml-py ninja filelock"
)
FAMILY = Family("flashinfer", "flashinfer-python", needs_gpu=True)

_BUILD = ("_cuda_architecture", "core", "cpp_ext", "dsv3_optimizations", "hash_topk", "spdlog")
_REAL = (
    "flashinfer._build_meta",
    "flashinfer.utils",
    "flashinfer.jit.utils",
    *(f"flashinfer.jit.{each}" for each in _BUILD),
)
_KEPT = ("compilation_context", "version", "jit", "jit.env", "jit.cpp_ext")
"""What its functions import when they are called."""


@cache
def _module(name: str) -> ModuleType:
    kept = [f"flashinfer.{each}" for each in _KEPT]
    return lone_module(f"flashinfer.fused_moe.{name}", install=INSTALL, real=_REAL, kept=kept)


_V3: dict[str, Any] = {
    "score": ("sigmoid",),
    "selection_bias": ("gate",),
    "renormalize": (Renormalize(eps=1e-20),),
    "scale": ANY,
    "weights_dtype": ("input",),
}
_GROUPED = Claim.plain(groups=(GroupRule(top=(2,), fill=(-math.inf,)),), **_V3)
_ROWS: dict[str, Any] = {
    "takes": "logits",
    "layouts": ("contiguous",),
    "numerics": Numerics(sigmoid="absolute"),
}


def _routed(config: RouterConfig, given: TorchInputs) -> Routing:
    import torch

    logits, groups = given.logits, config.groups
    assert logits is not None, "it takes logits"
    shape = (len(logits), config.top_k)
    weights = logits.new_empty(shape)
    ids = torch.empty(shape, dtype=torch.int32, device=logits.device)
    counts = (groups.count, groups.kept) if groups else (1, 1)
    route = _module("fused_routing_dsv3").fused_topk_deepseek
    route(logits, given.selection_bias, *counts, config.top_k, config.scale, weights, ids)
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(
    _GROUPED,
    **_ROWS,
    dtypes=("float32",),
    limits=Limits(
        min_tokens=1,
        experts=(256,),
        max_top_k=8,
        max_groups=32,
        max_group_size=32,
        max_kept_experts=128,
    ),
)
def fused_topk_deepseek(config: RouterConfig, given: TorchInputs) -> Routing:
    """``fused_topk_deepseek`` of DeepSeek-V3's 256 experts, in all groups that its checks take."""
    return _routed(config, given)


@FAMILY.function(
    Claim.plain(**_V3), **_ROWS, limits=Limits(min_tokens=1, max_top_k=8, max_experts=128)
)
def fused_topk_deepseek_one_group(config: RouterConfig, given: TorchInputs) -> Routing:
    """``fused_topk_deepseek`` of a single group, as Kimi-K2 has it."""
    return _routed(config, given)


@FAMILY.function(
    Claim.plain(score=("sqrtsoftplus",), expert_table=(True,), renormalize=(Renormalize(),)),
    takes="logits",
    layouts=("contiguous",),
    dtypes=("float32",),
    limits=Limits(max_top_k=32),
    numerics=Numerics(softplus="absolute"),
)
def hash_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``hash_topk`` of DeepSeek-V4's hashed layers."""
    table = given.expert_table
    assert table is not None, "claimed are tables alone"
    route = _module("hash_topk").hash_topk
    weights, ids = route(given.logits, given.token_ids, table.int())
    return Routing(weights=weights, expert_ids=ids)


MEMBERS = NEEDS_GPU = FAMILY.members
OUT_OF_SCOPE = {
    "trtllm_gen_routing": "it is compiled for Blackwell GPUs alone",
    "kimi_k3_fused_router": "it is compiled for Blackwell GPUs alone",
    "alphamoe_fused_router": "it is compiled for Blackwell GPUs alone",
}


def __getattr__(name: str) -> Any:
    return FAMILY.made(name)

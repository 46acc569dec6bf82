"""SGLang's routing kernels: Triton's, and those that are compiled from the wheel's own sources."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = (
    "python -m pip install --no-deps --target sglang sglang==0.5.23 "
    "&& export PYTHONPATH=$PWD/sglang"
)
KERNELS = Family("sglang", "sglang", needs_gpu=True)

_NORM = (None, Renormalize())
_FEW = Limits(experts=(8, 256), top_k=(1, 8))
"""Each number of experts and of slots is a compilation of its own."""


_OPS = "sglang.kernels.ops.moe"
_JIT = "sglang.kernels.jit.utils"
_TRITON = (f"{_OPS}.gate_topk", f"{_OPS}.moe_route_radix", _JIT, f"{_JIT}.arch", f"{_JIT}.common")
_PARTS = (
    "cache",
    "cpp_args",
    "loader",
    "ninja",
    "parallel",
    "paths",
    "sailify",
    "spec",
    "toolchain",
)
BUILD = (
    "sglang.kernels.jit",
    f"{_JIT}.deps",
    f"{_JIT}.compile",
    *(f"{_JIT}.compile.{each}" for each in _PARTS),
)


@cache
def module_of(name: str, *build: str) -> ModuleType:
    """Import a module of kernels, with what compiles them. Errors: ``BackendMissing``."""
    kept = ("sglang.srt.environ",)
    whole = name if "." in name else f"{_OPS}.{name}"
    return lone_module(whole, install=INSTALL, real=(*_TRITON, *build), kept=kept)


@KERNELS.function(
    Claim.plain(renormalize=_NORM, scale=ANY, logit_softcap=(False, True)),
    Claim.plain(
        score=("sigmoid", "sqrtsoftplus"), selection_bias=("gate",), renormalize=_NORM, scale=ANY
    ),
    takes="logits",
    limits=_FEW,
)
def moe_fused_gate(config: RouterConfig, given: TorchInputs) -> Routing:
    """``moe_fused_gate`` without groups."""
    return fused_gate(config, given)


def fused_gate(config: RouterConfig, given: TorchInputs, **groups: int) -> Routing:
    """Call ``moe_fused_gate``, with what it is told of groups."""
    weights, ids = module_of("moe_fused_gate").moe_fused_gate(
        given.logits,
        given.selection_bias,
        config.top_k,
        scoring_func=config.score,
        renormalize=config.renormalize is not None,
        routed_scaling_factor=config.scale,
        apply_routed_scaling_factor_on_output=True,
        moe_softcapping=config.logit_softcap or 0.0,
        **groups,
    )
    return Routing(weights=weights, expert_ids=ids)


@KERNELS.function(Claim.of_preset("gemma4_text", input_norm=(False,)), takes="logits", limits=_FEW)
def gemma4_fused_routing(config: RouterConfig, given: TorchInputs) -> Routing:
    """``gemma4_fused_routing``: with a scale for every expert."""
    logits, scale = given.logits, given.per_expert_scale
    assert logits is not None, "it takes logits"
    scale = logits.new_ones(config.num_experts) if scale is None else scale
    weights, ids = module_of("gemma4_routing").gemma4_fused_routing(logits, scale, config.top_k)
    return Routing(weights=weights, expert_ids=ids)


@KERNELS.function(
    Claim.plain(
        score=("sigmoid",),
        selection_bias=("gate",),
        renormalize=(Renormalize(),),
        scale=ANY,
        weights_dtype=("input",),
    ),
    takes="logits",
    layouts=("contiguous",),
    limits=Limits(experts=(8, 256), top_k=(2, 8)),
)
def sigmoid_gate_topk_renorm(config: RouterConfig, given: TorchInputs) -> Routing:
    """``sigmoid_gate_topk_renorm`` without shared experts."""
    logits = given.logits
    assert logits is not None, "it takes logits"
    one = logits.new_ones(1).float()
    found = module_of("sigmoid_gate_topk_renorm").sigmoid_gate_topk_renorm(
        logits, config.top_k, 0, config.scale, one, given.selection_bias
    )
    return Routing(weights=found[0], expert_ids=found[1])


@KERNELS.function(Claim.plain(renormalize=_NORM), takes="logits", layouts=("contiguous",))
def topk_softmax(config: RouterConfig, given: TorchInputs) -> Routing:
    """``topk_softmax``, compiled by nvcc, without a softcap."""
    return compiled("softmax", config, given)


@KERNELS.function(
    Claim.plain(score=("sigmoid",)),
    Claim.plain(score=("sigmoid",), renormalize=(Renormalize(eps=1e-20),), scale=ANY),
    takes="logits",
    layouts=("contiguous",),
    limits=Limits(min_tokens=1),
)
def topk_sigmoid(config: RouterConfig, given: TorchInputs) -> Routing:
    """``topk_sigmoid``, compiled by nvcc, without a bias; it scales what it renormalises."""
    return compiled("sigmoid", config, given, routed_scaling_factor=config.scale)


def compiled(score: str, config: RouterConfig, given: TorchInputs, **others: Any) -> Routing:
    """Call ``topk_softmax`` or ``topk_sigmoid``, which write into what they are given."""
    import torch

    logits = given.logits
    assert logits is not None, "it takes logits"
    shape = (len(logits), config.top_k)
    weights = torch.empty(shape, dtype=torch.float32, device=logits.device)
    ids = torch.empty(shape, dtype=torch.int32, device=logits.device)
    route = getattr(module_of(f"moe_topk_{score}", *BUILD), f"topk_{score}")
    route(weights, ids, logits, renormalize=config.renormalize is not None, **others)
    return Routing(weights=weights, expert_ids=ids)

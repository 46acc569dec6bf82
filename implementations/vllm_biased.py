"""vLLM's routing kernels that need a bias, by the sizes compiled, and those of gpt-oss."""

from __future__ import annotations

import importlib
import math
import sys
from functools import cache
from typing import Any

from moe_routing.implementations.capabilities import Limits, Numerics
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.protocol import BackendMissing
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.implementations.vllm_kernels import INSTALL, fused, in_wheel, operations
from moe_routing.implementations.vllm_kernels import KERNELS as KERNELS
from moe_routing.reference import Renormalize, RouterConfig, Routing

_COMPILED = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 192, 320, 384, 448, 576)
"""The numbers of experts that ``topk_softmax`` and ``topk_sigmoid`` have a kernel for."""

_NORM = (None, Renormalize())
_ROWS: dict[str, Any] = {"takes": "logits", "layouts": ("contiguous",)}
_BIAS: dict[str, Any] = {"selection_bias": ("gate",), "renormalize": _NORM}
_CLAIMS = (
    Claim.plain(**_BIAS),
    Claim.plain(score=("sigmoid",), scale=ANY, **_BIAS),
)
_V3: dict[str, Any] = {
    "score": ("sigmoid",),
    "selection_bias": ("gate",),
    "renormalize": (None, Renormalize(eps=1e-20)),
    "scale": ANY,
}


def _biased(config: RouterConfig, given: TorchInputs) -> Routing:
    others = (config.scale,) if config.score == "sigmoid" else ()
    return fused(f"topk_{config.score}", config, given, given.selection_bias, *others, None)


@KERNELS.function(*_CLAIMS, **_ROWS, limits=Limits(min_tokens=1, experts=_COMPILED))
def fused_topk_bias(config: RouterConfig, given: TorchInputs) -> Routing:
    """``topk_softmax`` and ``topk_sigmoid`` with a bias, of numbers of experts compiled in."""
    return _biased(config, given)


@KERNELS.function(*_CLAIMS, **_ROWS, limits=Limits(min_tokens=1, experts=(6, 60, 160, 288)))
def fused_topk_bias_any_size(config: RouterConfig, given: TorchInputs) -> Routing:
    """The same of any other number of experts, by ``moeTopK``."""
    return _biased(config, given)


@KERNELS.function(
    Claim.plain(score=("sqrtsoftplus",), scale=ANY, **_BIAS),
    **_ROWS,
    limits=Limits(min_tokens=1, experts=(8, 64, 256), max_top_k=8),
    numerics=Numerics(softplus="absolute"),
)
def fused_topk_bias_softplus(config: RouterConfig, given: TorchInputs) -> Routing:
    """``topk_softplus_sqrt`` with a bias: DeepSeek-V4."""
    others = (config.scale, given.selection_bias, None, None, None, None, 0)
    return fused("topk_softplus_sqrt", config, given, *others)


def _grouped(config: RouterConfig, given: TorchInputs) -> Routing:
    groups, norm = config.groups, config.renormalize is not None
    counts = (groups.count, groups.kept) if groups else (1, 1)
    bias = given.selection_bias
    found = operations().grouped_topk(
        given.logits, *counts, config.top_k, norm, config.scale, bias, 1
    )
    return Routing(weights=found[0], expert_ids=found[1])


@KERNELS.function(
    Claim.plain(**_V3),
    **_ROWS,
    limits=Limits(min_tokens=1, experts=(128, 256, 384, 512), max_top_k=8),
    numerics=Numerics(sigmoid="absolute"),
)
def fused_grouped_topk_one_group(config: RouterConfig, given: TorchInputs) -> Routing:
    """``grouped_topk`` of one group: Kimi-K2, and models without groups."""
    return _grouped(config, given)


@KERNELS.function(
    Claim.plain(groups=(GroupRule(top=(2,), fill=(-math.inf,)),), **_V3),
    **_ROWS,
    dtypes=("float32",),
    limits=Limits(min_tokens=1, experts=(512,), max_top_k=32, max_groups=8, min_group_size=64),
    numerics=Numerics(sigmoid="absolute"),
)
def fused_grouped_topk_large_groups(config: RouterConfig, given: TorchInputs) -> Routing:
    """``grouped_topk`` of groups of more than 32 experts, by its general kernel."""
    return _grouped(config, given)


@cache
def _topk() -> Any:
    """Return ``topk`` of the ``triton_kernels`` in the wheel. Errors: ``BackendMissing``."""
    found = in_wheel("third_party/triton_kernels")
    if not found:
        raise BackendMissing(f"vllm is not installed, or has no triton_kernels: {INSTALL}")
    sys.path.append(str(found[0].parent))
    try:
        return importlib.import_module("triton_kernels.topk").topk
    finally:
        sys.path.remove(str(found[0].parent))


@KERNELS.function(
    Claim.plain(
        score=("identity",), weights_from=("softmax_of_selected",), weights_dtype=("input",)
    ),
    **_ROWS,
    dtypes=("float32", "bfloat16"),
    limits=Limits(min_tokens=1, experts=(32, 128), top_k=(4,)),
    differentiable=True,
)
def gpt_oss_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``triton_kernels.topk``, which gpt-oss is routed by, forwards and backwards."""
    weights, ids, _ = _topk()(given.logits, config.top_k)
    return Routing(weights=weights, expert_ids=ids)

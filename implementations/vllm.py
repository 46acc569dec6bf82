"""vLLM's routing functions: those in plain torch, called as they are, and its kernels."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, partial
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.functions import Family, shares_of
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.promises import SORTED
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.implementations.vllm_biased import KERNELS
from moe_routing.implementations.vllm_kernels import INSTALL, MoeAlignBlockSize
from moe_routing.implementations.vllm_scatter import MoePrepareScatter
from moe_routing.implementations.vllm_shared import SHARED
from moe_routing.reference import Renormalize, RouterConfig, Routing
from moe_routing.reference.config import LEAST_PRECISE

FAMILY = Family("vllm", "vllm", on_any_device=True)

_NORM = (None, Renormalize())
_BEST = GroupRule(top=(1,), fill=(-math.inf,))
_BEST_TWO = GroupRule(top=(2,), fill=(-math.inf,))
_EITHER: dict[str, Any] = {"gate_dtype": LEAST_PRECISE}
"""What is given logits in the dtype of the model, or in float32."""

_SOFTMAX = Claim.plain(renormalize=_NORM, **_EITHER)
_GROUPED: dict[str, Any] = {"renormalize": _NORM, "scale": ANY, **_EITHER}
_GROUPS = (
    Claim.plain(score=("softmax", "sigmoid"), groups=(_BEST,), **_GROUPED),
    Claim.plain(
        score=("softmax", "sigmoid"), groups=(_BEST_TWO,), selection_bias=("gate",), **_GROUPED
    ),
)

_PAIRS = Limits(min_group_size=2)
"""With a bias, the best two of every group are added up."""


__all__ = ["MEMBERS", "NEEDS_GPU", "OUT_OF_SCOPE"]


@cache
def _module(name: str, *real: str) -> ModuleType:
    return lone_module(f"vllm.model_executor.{name}", install=INSTALL, real=real)


_router = partial(_module, "layers.fused_moe.router.cpu_router")


@FAMILY.function(_SOFTMAX, takes="logits")
def cpu_softmax_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``_softmax_topk`` of the CPU router: OLMoE, Jamba, Qwen2-MoE, Mixtral."""
    routed = _router()._softmax_topk(given.logits, config.top_k, config.renormalize is not None)
    return Routing(weights=routed[0], expert_ids=routed[1])


@FAMILY.function(*_GROUPS, takes="logits", limits=_PAIRS)
def cpu_grouped_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``_grouped_topk`` of the CPU router: DeepSeek-V2 and V3."""
    weights, ids = _router()._grouped_topk(given.logits, **_grouped(config, given))
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(
    *(replace(each, gate_dtype=("float32",)) for each in _GROUPS), takes="logits", limits=_PAIRS
)
def grouped_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``grouped_topk`` of every platform, run eagerly; the models give it float32 logits."""
    module = _module("layers.fused_moe.router.grouped_topk_router", "vllm.envs")
    weights, ids = module.grouped_topk(given.logits, given.logits, **_grouped(config, given))
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(Claim.of_preset("llama4_text", **_EITHER), takes="logits", promises=SORTED)
def llama4(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Llama4MoE.custom_routing_function``."""
    module = _module("models.llama4", "vllm.model_executor.models.utils")
    route = module.Llama4MoE.custom_routing_function
    weights, ids = route(given.hidden, given.logits, config.top_k, False)
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(
    Claim.of_preset("gemma4_text", input_norm=(False,), scores_dtype=("input",), **_EITHER),
    takes="logits",
    promises=SORTED,
)
def gemma4(config: RouterConfig, given: TorchInputs) -> Routing:
    """``gemma4_routing_function_torch``: with a scale for every expert."""
    route = _module("models.gemma4").gemma4_routing_function_torch
    logits, scale = given.logits, given.per_expert_scale
    assert logits is not None, "it takes logits"
    scale = logits.new_ones(config.num_experts) if scale is None else scale
    weights, ids = route(logits, config.top_k, scale)
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(
    Claim.plain(renormalize=_NORM, groups=(None, GroupRule(from_each=(True,))), **_EITHER),
    takes="logits",
)
def interns1_pro(config: RouterConfig, given: TorchInputs) -> Routing:
    """``_custom_routing_function`` of InternS1-Pro, whose groups each give a share."""
    model = _module("models.interns1_pro").InternS1ProMoeSparseMoeBlock
    block = SimpleNamespace(n_groups=shares_of(config), get_group_offsets=model.get_group_offsets)
    norm, route = config.renormalize is not None, model._custom_routing_function
    weights, ids = route(block, given.hidden, given.logits, config.top_k, norm)
    return Routing(weights=weights, expert_ids=ids)


def _grouped(config: RouterConfig, given: TorchInputs) -> dict[str, Any]:
    groups = config.groups
    assert groups is not None, "claimed are groups alone"
    return {
        "topk": config.top_k,
        "renormalize": config.renormalize is not None,
        "num_expert_group": groups.count,
        "topk_group": groups.kept,
        "scoring_func": config.score,
        "routed_scaling_factor": config.scale,
        "e_score_correction_bias": given.selection_bias,
    }


_SORTS = {"moe_align_block_size": MoeAlignBlockSize, "moe_prepare_scatter": MoePrepareScatter}
NEEDS_GPU = (*KERNELS.members, *_SORTS)
MEMBERS = (*FAMILY.members, *SHARED.members, *NEEDS_GPU)
OUT_OF_SCOPE = {
    "dsv4_topk": "its kernel is there only where the engine's platform, with all that it imports, "
    "has found a GPU",
    "cpu_sqrtsoftplus": "biased_topk_cpu is a compiled operation of vllm's build for CPUs",
    "phimoe": "it picks two experts one after the other (sparsemixer)",
}


def __getattr__(name: str) -> Any:
    if name in _SORTS:
        return _SORTS[name]
    return (SHARED if name in SHARED.members else KERNELS).made(name)

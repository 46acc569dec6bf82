"""LLM Compressor's own gates: those of DeepSeek-V3.2, Kimi-K3 and Command A+."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.promises import SORTED
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = "python -m pip install --no-deps llmcompressor==0.14.0.1"
FAMILY = Family("llm-compressor", "llmcompressor", on_any_device=True)

_ABSENT = ("compressed_tensors", "loguru", "fla")
_BEST = GroupRule(top=(1,), fill=(-math.inf,))
_BEST_TWO = GroupRule(top=(2,), fill=(-math.inf,))


@cache
def _module(name: str) -> ModuleType:
    return lone_module(f"llmcompressor.modeling.{name}", install=INSTALL, absent=_ABSENT)


def _groups(config: RouterConfig) -> tuple[int, int]:
    return (config.groups.count, config.groups.kept) if config.groups else (1, 1)


@FAMILY.function(
    Claim.plain(groups=(None, _BEST), scale=ANY),
    Claim.plain(score=("sigmoid",), groups=(None, _BEST), renormalize=(Renormalize(),), scale=ANY),
    Claim.plain(
        score=("sigmoid",),
        groups=(None, _BEST_TWO),
        renormalize=(Renormalize(),),
        scale=ANY,
        selection_bias=("gate",),
    ),
    limits=Limits(min_group_size=2),
    promises=SORTED,
)
def deepseek_v32(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gate`` of its DeepSeek-V3.2, which is DeepSeek's own code."""
    count, kept = _groups(config)
    bias = given.selection_bias
    gate = SimpleNamespace(weight=given.gate_weight, bias=bias, e_score_correction_bias=bias)
    gate.topk, gate.n_groups, gate.topk_groups = config.top_k, count, kept
    gate.score_func, gate.route_scale = config.score, config.scale
    weights, ids = _module("deepseekv32.model").Gate.forward(gate, given.hidden)
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(
    Claim.plain(
        score=("sigmoid", "softmax"),
        groups=(None, _BEST_TWO),
        renormalize=(None, FromTwo(Renormalize(eps=1e-20))),
        scale=ANY,
        selection_bias=("none", "gate"),
    ),
    limits=Limits(min_group_size=2),
)
def kimi_k3(config: RouterConfig, given: TorchInputs) -> Routing:
    """``KimiMoEGate`` of its Kimi-K3."""
    count, kept = _groups(config)
    bias = given.selection_bias
    gate: Any = SimpleNamespace(num_experts=config.num_experts, num_expert_group=count)
    gate.top_k, gate.topk_group, gate.weight = config.top_k, kept, given.gate_weight
    gate.moe_router_activation_func, gate.routed_scaling_factor = config.score, config.scale
    gate.moe_renormalize = config.renormalize is not None
    gate.e_score_correction_bias = gate.weight.new_zeros(()).expand(1) if bias is None else bias
    forward = _module("kimi_k3.modeling_kimi_linear").KimiMoEGate.forward
    ids, weights = forward(gate, given.hidden[None])
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(
    Claim.of_preset("cohere2_moe", renormalize=(None, Renormalize())),
    Claim.of_preset("cohere2_moe_softmax"),
    promises=SORTED,
)
def cohere2_moe(config: RouterConfig, given: TorchInputs) -> Routing:
    """``LinearRouter``, which takes the place of Cohere2-MoE's router."""
    from torch.nn import functional as F

    said = config.weights_from.removesuffix("_of_selected")
    router = SimpleNamespace(top_k=config.top_k, expert_selection_fn=said)
    router.linear = lambda hidden: F.linear(hidden, given.gate_weight)
    router.norm_topk_prob = config.renormalize is not None
    forward = _module("moe.cohere2_moe").LinearRouter.forward
    logits, weights, ids = forward(router, given.hidden)
    return Routing(weights=weights, expert_ids=ids, logits=logits)


MEMBERS = FAMILY.members
OUT_OF_SCOPE: dict[str, str] = {}

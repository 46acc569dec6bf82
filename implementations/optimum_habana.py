"""The gates of Optimum for Intel Gaudi, which are plain torch: DeepSeek-V2 and V3."""

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

INSTALL = "python -m pip install --no-deps optimum-habana==1.21.2"
FAMILY = Family("optimum-habana", "optimum-habana", on_any_device=True)

_SUM = Renormalize(eps=1e-20)
_HIGH: dict[str, Any] = {"scoring_func": "softmax", "alpha": 0.0, "training": False}


@cache
def _module(name: str) -> ModuleType:
    models = "optimum.habana.transformers.models"
    return lone_module(
        f"{models}.{name}.modeling_{name}", install=INSTALL, absent=("habana_frameworks",)
    )


def _gate(config: RouterConfig, given: TorchInputs) -> Any:
    """Return what stands for a gate of this configuration: its settings and its weights."""
    count, kept = (config.groups.count, config.groups.kept) if config.groups else (1, 1)
    gate = SimpleNamespace(**{**_HIGH, "scoring_func": config.score})
    gate.top_k, gate.n_routed_experts = config.top_k, config.num_experts
    gate.n_group, gate.topk_group = count, kept
    gate.norm_topk_prob, gate.routed_scaling_factor = config.renormalize is not None, config.scale
    gate.weight, gate.e_score_correction_bias = given.gate_weight, given.selection_bias
    return gate


@FAMILY.function(
    *(
        Claim.of_preset(name, logits_dtype=("input",), **axes)
        for name in ("deepseek_v2", "deepseek_v2_lite")
        for axes in ({"scale": ANY}, {"renormalize": (FromTwo(_SUM),), "scale": (1.0,)})
    ),
    dtypes=("bfloat16",),
    promises=SORTED,
)
def deepseek_v2(config: RouterConfig, given: TorchInputs) -> Routing:
    """``MoEGate`` of DeepSeek-V2, which multiplies in bfloat16."""
    gate = _gate(config, given)
    gate.topk_method = "group_limited_greedy" if config.groups else "greedy"
    ids, weights, _ = _module("deepseek_v2").MoEGate.forward(gate, given.hidden[None])
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(
    Claim.of_preset(
        "deepseek_v3",
        groups=(GroupRule(top=(2,), fill=(-math.inf,)),),
        renormalize=(None, FromTwo(_SUM)),
        scale=ANY,
        selection_bias=("gate",),
    ),
    limits=Limits(min_group_size=2),
)
def deepseek_v3(config: RouterConfig, given: TorchInputs) -> Routing:
    """``MoEGate`` of DeepSeek-V3."""
    gate = _gate(config, given)
    gate.topk_method = "noaux_tc"
    ids, weights = _module("deepseek_v3").MoEGate.forward(gate, given.hidden[None])
    return Routing(weights=weights, expert_ids=ids)


MEMBERS = FAMILY.members
OUT_OF_SCOPE = {
    "mixtral": "its module imports names that newer releases of transformers do not have",
    "qwen3_moe": "its block routes and runs its experts in one call of a Gaudi kernel",
}

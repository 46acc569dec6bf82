"""XTuner's gate of DeepSeek-V2, called as it is without the transformers that it was made for."""

from __future__ import annotations

from functools import cache
from types import ModuleType, SimpleNamespace

from moe_routing.implementations.claims import Claim
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = "python -m pip install --no-deps xtuner==0.2.0"
FAMILY = Family("xtuner", "xtuner", on_any_device=True)


@cache
def _module() -> ModuleType:
    models = "xtuner.model.transformers_models"
    absent = ("transformers", "flash_attn")
    return lone_module(f"{models}.deepseek_v2.modeling_deepseek", install=INSTALL, absent=absent)


@FAMILY.only(
    *(
        Claim.of_preset(name, **axes)
        for name in ("deepseek_v2", "deepseek_v2_lite")
        for axes in (
            {"scale": ANY},
            {"renormalize": (FromTwo(Renormalize(eps=1e-20)),), "scale": (1.0,)},
        )
    ),
    layouts=("contiguous",),
    differentiable=True,
)
def xtuner(config: RouterConfig, given: TorchInputs) -> Routing:
    """``MoEGate``, which scales what it does not renormalise."""
    count, kept = (config.groups.count, config.groups.kept) if config.groups else (1, 1)
    gate = SimpleNamespace(
        scoring_func=config.score,
        alpha=0.0,
        training=False,
        top_k=config.top_k,
        n_routed_experts=config.num_experts,
        topk_method="group_limited_greedy" if config.groups else "greedy",
        n_group=count,
        topk_group=kept,
        norm_topk_prob=config.renormalize is not None,
        routed_scaling_factor=config.scale,
        weight=given.gate_weight,
    )
    ids, weights, _ = _module().MoEGate.forward(gate, given.hidden[None])
    return Routing(weights=weights, expert_ids=ids)

"""SGLang's routing kernels that need a bias, groups or a table: DeepSeek, Kimi, MuseSpark."""

from __future__ import annotations

import math
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.sglang_kernels import BUILD, compiled, fused_gate, module_of
from moe_routing.implementations.sglang_kernels import KERNELS as KERNELS
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

_ROWS: dict[str, Any] = {"takes": "logits", "layouts": ("contiguous",)}
_BIASED: dict[str, Any] = {"score": ("sigmoid",), "selection_bias": ("gate",)}
_SCALED: dict[str, Any] = {"renormalize": (Renormalize(),), "scale": ANY, **_BIASED}


@KERNELS.function(
    Claim.plain(groups=(GroupRule(top=(2,), fill=(-math.inf,)),), **_SCALED),
    takes="logits",
    dtypes=("float32",),
    limits=Limits(experts=(256,), top_k=(8,), max_groups=8, min_group_size=32, max_kept_groups=4),
)
def moe_fused_gate_grouped(config: RouterConfig, given: TorchInputs) -> Routing:
    """``moe_fused_gate`` with groups, in Triton: DeepSeek-V3."""
    groups = config.groups
    assert groups is not None, "claimed are groups alone"
    return fused_gate(config, given, num_expert_group=groups.count, topk_group=groups.kept)


@KERNELS.function(
    Claim.plain(**_SCALED),
    **_ROWS,
    dtypes=("float32", "bfloat16"),
    limits=Limits(min_tokens=1, experts=(896,), top_k=(16,)),
)
def route_radix(config: RouterConfig, given: TorchInputs) -> Routing:
    """``route_radix``, which ``moe_fused_gate`` gives the 896 experts of Kimi-K3."""
    made = module_of("moe_route_radix", *BUILD)
    logits, bias = given.logits, given.selection_bias
    assert made.covered(logits, bias, config.top_k), "claimed is what it covers"
    weights, ids = made.route_radix(logits, bias, config.top_k, True, config.scale, True)
    return Routing(weights=weights, expert_ids=ids)


@KERNELS.function(
    Claim.plain(**_SCALED),
    Claim.plain(**_BIASED),
    **_ROWS,
    limits=Limits(min_tokens=1, experts=(256, 384), max_top_k=8),
)
def kimi_k2_moe_fused_gate(config: RouterConfig, given: TorchInputs) -> Routing:
    """``kimi_k2_moe_fused_gate``, compiled by nvcc; it scales what it renormalises."""
    norm = config.renormalize is not None
    made = module_of("sglang.kernels.ops.lora.moe.trtllm_lora_temp.kimi_k2_moe_fused_gate", *BUILD)
    weights, ids = made.kimi_k2_moe_fused_gate(
        given.logits, given.selection_bias, config.top_k, norm, config.scale, True
    )
    return Routing(weights=weights, expert_ids=ids)


@KERNELS.function(
    Claim.plain(**_BIASED),
    Claim.plain(**{**_SCALED, "renormalize": (Renormalize(eps=1e-20),)}),
    **_ROWS,
    limits=Limits(min_tokens=1, experts=(8, 64, 256)),
)
def topk_sigmoid_biased(config: RouterConfig, given: TorchInputs) -> Routing:
    """``topk_sigmoid`` with a bias, of a number of experts that is compiled in."""
    others = {"correction_bias": given.selection_bias, "routed_scaling_factor": config.scale}
    return compiled("sigmoid", config, given, **others)


@KERNELS.function(
    Claim.plain(
        score=("sigmoid", "softmax"),
        selection_bias=("gate",),
        renormalize=(Renormalize(),),
        scale=ANY,
        logit_multiplier=(False, True),
    ),
    **_ROWS,
    dtypes=("float32",),
    limits=Limits(min_tokens=1, experts=(8, 256), top_k=(1, 8)),
)
def fused_muse_spark_routing(config: RouterConfig, given: TorchInputs) -> Routing:
    """``fused_muse_spark_routing``, in Triton, with a multiplier of the logits."""
    found = module_of("muse_spark_routing").fused_muse_spark_routing(
        given.logits,
        given.selection_bias,
        config.top_k,
        config.scale,
        router_output_multiplier=config.logit_multiplier,
        router_score_normalization=config.score,
    )
    return Routing(weights=found[0], expert_ids=found[1])


@KERNELS.function(
    Claim.plain(
        score=("sqrtsoftplus",), expert_table=(True,), renormalize=(Renormalize(eps=1e-20),)
    ),
    **_ROWS,
    dtypes=("float32",),
    limits=Limits(min_tokens=1, max_top_k=32),
)
def hash_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``hash_topk`` of DeepSeek-V4's hashed layers, compiled by nvcc."""
    table = given.expert_table
    assert table is not None, "claimed are tables alone"
    route = module_of("dsv4", *BUILD).hash_topk
    weights, ids = route(given.logits, given.token_ids, table.int())
    return Routing(weights=weights, expert_ids=ids)

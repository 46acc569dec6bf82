"""How the configuration classes spell the settings of a case."""

from __future__ import annotations

from typing import Any

from moe_routing.reference import RouterConfig

_ONE = (
    *("num_attention_heads", "num_key_value_heads", "num_hidden_layers", "num_shared_experts"),
    *("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"),
    *("n_shared_experts", "ffn_hidden_size", "expert_ffn_hidden_size"),
)
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k")
_HIDDEN = ("hidden_size", "d_model", "adapter_in_dim")
SCALE = ("routed_scaling_factor", "route_scale", "router_scaling_factor")
NORM = ("norm_topk_prob", "moe_renormalize")
HIDDEN_NORM = ("rms_norm_eps",)


def spelled(config: RouterConfig, inputs: Any) -> dict[str, Any]:
    """Return the settings of a tiny model that routes so, in the spelling of every class.

    A configuration class stores an unknown setting as an unused attribute. ``inputs`` are
    ``RouterInputs``, or have what is read of them.
    """
    groups, norm = config.groups, config.renormalize
    values: dict[tuple[str, ...], Any] = {
        _ONE: 1,
        ("head_dim",): 2,
        _EXPERTS: config.num_experts,
        (*TOP_K, "top_k_experts"): config.top_k,
        _HIDDEN: inputs.hidden_size,
        SCALE: float(config.scale),
        NORM: norm is not None,
        ("moe_normalize_expert_weights",): norm and norm.order,
        ("n_group", "num_expert_group"): groups and groups.count,
        ("topk_group",): groups and groups.kept,
        ("topk_method",): "group_limited_greedy" if groups else "greedy",
        ("scoring_func",): config.score,
        ("expert_selection_fn",): config.weights_from.removesuffix("_of_selected"),
        ("output_multiplier",): config.logit_multiplier,
        ("moe_router_logit_softcapping",): config.logit_softcap or 0.0,
        ("use_expert_bias",): inputs.selection_bias is not None,
        ("router_bias",): inputs.gate_bias is not None,
        ("zero_expert_num",): 0,
        ("expert_capacity",): inputs.num_tokens,
    }
    if config.input_norm is not None:
        values["rms_norm_eps",] = config.input_norm.eps
    if inputs.expert_table is not None:
        values["vocab_size",] = len(inputs.expert_table)
    return {name: value for names, value in values.items() for name in names}

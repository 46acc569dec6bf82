"""Rows of the routers of mlx-lm whose scores are a sigmoid or a square root of softplus."""

from __future__ import annotations

from moe_routing.implementations.claims import Claim
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.mlx_lm.blocks import Row
from moe_routing.implementations.mlx_lm.needs import (
    IN_DTYPE,
    LINEAR,
    SUM_EPS,
    needs,
    v3,
)
from moe_routing.implementations.permitted import ANY
from moe_routing.reference import Renormalize

ROWS = (
    # Sigmoid, with groups.
    Row(name="deepseek_v3", block="deepseek_v3.MoEGate", claims=v3("deepseek_v3")),
    Row(name="deepseek_v32", block="deepseek_v32.MoEGate", claims=v3("deepseek_v32")),
    Row(name="glm4_moe", block="glm4_moe.MoEGate", claims=v3("glm4_moe")),
    Row(name="glm4_moe_lite", block="glm4_moe_lite.MoEGate", claims=v3("glm4_moe_lite", SUM_EPS)),
    Row(name="dots1", block="dots1.Dots1TopkRouter", claims=v3("dots1")),
    Row(name="exaone_moe", block="exaone_moe.MoEGate", claims=v3("exaone_moe", SUM_EPS)),
    Row(name="mimo_v2_flash", block="mimo_v2_flash.MoEGate", claims=v3("mimo_v2_flash", SUM_EPS)),
    Row(name="nemotron_h", block="nemotron_h.MoEGate", claims=v3("nemotron_h", SUM_EPS)),
    Row(
        name="bailing_moe",
        block="bailing_moe.BailingMoeGate",
        claims=v3("bailing_hybrid", SUM_EPS),
        gate="gate_proj.weight",
        bias="expert_bias",
        settings={
            "score_function": "sigmoid",
            "moe_router_enable_expert_bias": True,
            "moe_router_enable_routed_scaling": True,
        },
    ),
    Row(
        name="bailing_moe_linear",
        block="bailing_moe_linear.Gate",
        claims=v3("bailing_hybrid"),
        gate="gate_proj.weight",
        bias="expert_bias",
        settings={
            "score_function": "sigmoid",
            "moe_router_enable_expert_bias": True,
            "moe_router_enable_routed_scaling": True,
        },
    ),
    Row(
        name="bailing_hybrid",
        block="bailing_hybrid.Gate",
        claims=v3("bailing_hybrid", SUM_EPS),
        gate="gate_proj.weight",
        bias="expert_bias",
        settings={"score_function": "sigmoid", "moe_router_enable_expert_bias": True},
    ),
    Row(
        name="bailing_moe_v3",
        block="bailing_moe_v3.BailingGate",
        claims=(Claim.of_preset("bailing_hybrid", scale=ANY),),
        bias="expert_bias",
    ),
    Row(
        name="afmoe",
        block="afmoe.AfmoeMoE",
        claims=v3("afmoe", selection_bias=("none", "block")),
        gate="router.gate.weight",
        bias="expert_bias",
        experts="experts",
        settings={"score_func": "sigmoid", "num_shared_experts": 0},
    ),
    Row(
        name="kimi_linear",
        block="kimi_linear.KimiSparseMoE",
        claims=v3("kimi_linear", SUM_EPS, scores_dtype=IN_DTYPE),
        settings={"moe_router_activation_func": "sigmoid", "num_shared_experts": 0},
        **LINEAR,
    ),
    Row(
        name="kimi_k3",
        block="kimi_k3.KimiK3SparseMoE",
        claims=v3("kimi_k3", SUM_EPS),
        settings={
            "num_shared_experts": 0,
            "routed_expert_hidden_size": None,
            "activation_situ_beta": None,
            "activation_situ_linear_beta": None,
        },
        **LINEAR,
    ),
    # Sigmoid without groups.
    Row(
        name="laguna",
        block="laguna.MoEGate",
        claims=(*needs("laguna"), *needs("laguna_softcap")),
        gate="proj.weight",
        settings={"moe_router_score_func": "sigmoid"},
    ),
    Row(
        name="lfm2_moe",
        block="lfm2_moe.Lfm2MoeSparseMoeBlock",
        claims=needs("lfm2_moe", renormalize=(None, Renormalize(eps=1e-6)), scale=ANY),
        bias="expert_bias",
        **LINEAR,
    ),
    Row(
        name="minimax",
        block="minimax.MiniMaxSparseMoeBlock",
        claims=needs("minimax_m2", logits_dtype=("float32",), renormalize=(SUM_EPS,)),
        **LINEAR,
    ),
    Row(
        name="minimax_m3_vl",
        block="minimax_m3_vl.SparseMoeBlock",
        claims=needs("minimax_m2", renormalize=(SUM_EPS,), scale=ANY),
        settings={"swiglu_alpha": 1.0, "swiglu_limit": 1.0, "shared_intermediate_size": 1},
        **LINEAR,
    ),
    Row(
        name="step3p5",
        block="step3p5.Step3p5MoEGate",
        claims=needs("step3p5", renormalize=(None, SUM_EPS), scale=ANY),
        gate="gate.weight",
        bias="router_bias",
    ),
    # Square root of softplus.
    Row(
        name="deepseek_v41",
        block="deepseek_v41.Router",
        claims=(
            Claim.of_preset(
                "deepseek_v4",
                score=("sqrtsoftplus", "sigmoid", "softmax"),
                renormalize=(None, FromTwo(SUM_EPS)),
                scale=ANY,
            ),
        ),
        settings={"gate_temp": 1.0},
    ),
)

"""Rows of the routers of mlx-lm whose weights are a softmax."""

from __future__ import annotations

from moe_routing.implementations.claims import Claim
from moe_routing.implementations.mlx_lm.blocks import Row
from moe_routing.implementations.mlx_lm.needs import (
    IN_DTYPE,
    LINEAR,
    SUM,
    SUM_EPS,
    needs,
    rounded,
)
from moe_routing.implementations.permitted import ANY

ROWS = (
    # Softmax, with blocks that have no router of their own.
    Row(
        name="qwen2_moe",
        block="qwen2_moe.Qwen2MoeSparseMoeBlock",
        claims=rounded("qwen2_moe"),
        **LINEAR,
    ),
    Row(
        name="qwen3_moe",
        block="qwen3_moe.Qwen3MoeSparseMoeBlock",
        claims=rounded("qwen3_moe", renormalize=(None, SUM)),
        **LINEAR,
    ),
    Row(
        name="qwen3_next",
        block="qwen3_next.Qwen3NextSparseMoeBlock",
        claims=rounded("qwen3_next", renormalize=(None, SUM)),
        **LINEAR,
    ),
    Row(
        name="olmoe",
        block="olmoe.OlmoeSparseMoeBlock",
        claims=rounded("olmoe", renormalize=(None, SUM)),
        settings={"mlp_bias": False},
        reshapes=True,
        **LINEAR,
    ),
    Row(
        name="mellum",
        block="mellum.MellumSparseMoeBlock",
        claims=rounded("mellum", renormalize=(None, SUM)),
        **LINEAR,
    ),
    Row(name="mixtral", block="mixtral.MixtralSparseMoeBlock", claims=needs("mixtral"), **LINEAR),
    Row(
        name="jamba",
        block="jamba.JambaSparseMoeBlock",
        claims=needs("mixtral"),
        gate="router.weight",
        experts="switch_mlp",
    ),
    Row(
        name="hunyuan",
        block="hunyuan.MoeBlock",
        claims=rounded("hunyuan_v1_moe", renormalize=(None,)),
        gate="gate.wg.weight",
        experts="switch_mlp",
        settings={"use_mixed_mlp_moe": False, "num_shared_expert": 1},
    ),
    Row(
        name="ernie4_5_moe",
        block="ernie4_5_moe.Ernie4_5_MoeMLP",
        claims=needs("ernie4_5_moe", selection_bias=("none",)),
        settings={"use_bias": False, "moe_num_shared_experts": 0, "moe_gate_act": "softmax"},
        **LINEAR,
    ),
    Row(
        name="phixtral",
        block="phixtral.MOE",
        claims=needs("mixtral"),
        positional=("args", "one", "one"),
        settings={"one": 1},
        **LINEAR,
    ),
    Row(
        name="gpt_oss",
        block="gpt_oss.MLPBlock",
        claims=needs("gpt_oss"),
        gate="router.weight",
        experts="experts",
        others={"router.bias": "gate_bias"},
    ),
    # Softmax, with gates.
    Row(name="deepseek", block="deepseek.MoEGate", claims=rounded("deepseek_v2_lite")),
    Row(
        name="deepseek_v2",
        block="deepseek_v2.MoEGate",
        claims=(
            *rounded("deepseek_v2", scale=ANY),
            *rounded("deepseek_v2_lite", scale=ANY),
        ),
    ),
    Row(
        name="granitemoe",
        block="granitemoe.GraniteMoeTopKGating",
        claims=needs("granitemoe"),
        gate="layer.weight",
        positional=("hidden_size", "num_local_experts", "num_experts_per_tok"),
    ),
    Row(
        name="granitemoehybrid",
        block="granitemoehybrid.GraniteMoeHybridTopKGating",
        claims=needs("granitemoehybrid"),
        gate="layer.weight",
        positional=("hidden_size", "num_local_experts", "num_experts_per_tok"),
    ),
    Row(
        name="gemma4_text",
        block="gemma4_text.Router",
        claims=needs("gemma4_text", scores_dtype=IN_DTYPE),
        gate="proj.weight",
        others={"scale": "hidden_scale", "per_expert_scale": "per_expert_scale"},
    ),
    Row(
        name="mistral4",
        block="mistral4.Mistral4MoE",
        claims=needs(
            "mistral4",
            renormalize=(None, SUM_EPS),
            scale=ANY,
            groups=(None, *Claim.of_preset("mistral4").groups),
        ),
        settings={"n_shared_experts": None},
        **LINEAR,
    ),
    Row(
        name="longcat_flash",
        block="longcat_flash.LongcatFlashTopkRouter",
        claims=needs(
            "longcat_flash", scale=ANY, renormalize=(None, SUM_EPS), scores_dtype=IN_DTYPE
        ),
        gate="classifier.weight",
        others={"classifier.bias": "gate_bias"},
        capabilities={"dtypes": ("float32",)},  # it adds up its softmax in the logits' dtype
    ),
)

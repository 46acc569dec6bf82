"""Rows of the routers whose scores, or weights, are a sigmoid or a square root of softplus."""

from __future__ import annotations

from typing import Any

from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.transformers.rows import FLOAT32_GATE, Row
from moe_routing.reference import Renormalize

_SUM, _SUM_EPS = Renormalize(), Renormalize(eps=1e-20)
_GATE = {"gate.weight": "gate_weight"}
_BIASED = {**_GATE, "gate.e_score_correction_bias": "selection_bias"}
_BLOCK_BIASED = {**_GATE, "e_score_correction_bias": "selection_bias"}
_SCALED: dict[str, Any] = {"varies": {"scale": ANY}}
_V4: dict[str, Any] = {
    "varies": {
        "score": ("sqrtsoftplus", "sigmoid", "softmax"),
        "renormalize": (_SUM_EPS, None),
        "scale": ANY,
    }
}


def _v3(name: str, block: str, **others: Any) -> Row:
    """Make a row of the DeepSeek-V3 router, which many models copy line by line."""
    varies = {"renormalize": (_SUM_EPS, None), "scale": ANY}
    return Row(name=name, block=block, arrays=_BIASED, varies=varies, **others)


ROWS = (
    # Top-k of the logits, then a sigmoid of the selected ones.
    Row(
        name="llama4_text",
        block="llama4.Llama4TextMoe",
        arrays={"router.weight": "gate_weight"},
        router="router",
        reads="dense",
        at="feed_forward",
    ),
    Row(
        name="kolibri1",
        block="kolibri1.Kolibri1SparseMoeBlock",
        arrays=_BIASED,
        varies={"renormalize": (None, _SUM)},
        slots="descending",
    ),
    # Sigmoid with a selection bias and groups.
    _v3(
        "deepseek_v3",
        "deepseek_v3.DeepseekV3MoE",
        presets=("deepseek_v3", "kimi_k2", "kimi_k25"),
    ),
    _v3("deepseek_v32", "deepseek_v32.DeepseekV32MoE"),
    _v3("glm4_moe", "glm4_moe.Glm4MoeMoE"),
    _v3("glm4_moe_lite", "glm4_moe_lite.Glm4MoeLiteMoE"),
    _v3("glm4v_moe_text", "glm4v_moe.Glm4vMoeTextMoE"),
    _v3("glm_moe_dsa", "glm_moe_dsa.GlmMoeDsaMoE"),
    _v3("glm5_next_text", "glm5_next.Glm5NextTextMoE"),
    _v3("dots1", "dots1.Dots1MoE"),
    _v3("dots3_note_text", "dots3_note.Dots3NoteTextMoE"),
    _v3("solar_open", "solar_open.SolarOpenMoE"),
    _v3("mimo_v2_flash", "mimo_v2_flash.MiMoV2FlashMoE"),
    _v3("hy_v4", "hy_v4.HYV4MoE"),
    _v3("nemotron_h", "nemotron_h.NemotronHMoE", at="mixer"),
    _v3("bailing_hybrid", "bailing_hybrid.BailingHybridMoE"),
    _v3("kimi_linear", "kimi_linear.KimiLinearMoE", presets=("kimi_linear", "kimi_k3")),
    _v3("exaone_moe", "exaone_moe.ExaoneMoeSparseMoEBlock"),
    _v3("axk1", "axk1.AXK1MoE"),
    _v3("axk2", "axk2.AXK2MoE", presets=("axk2", "axk2_light")),
    Row(
        name="beam",
        block="beam.BeamMoE",
        arrays=_BIASED,
        varies={"renormalize": (_SUM_EPS, None), **FLOAT32_GATE},
        slots="descending",
    ),
    # Sigmoid without groups.
    Row(name="minimax_m2", block="minimax_m2.MiniMaxM2SparseMoeBlock", arrays=_BLOCK_BIASED),
    Row(
        name="minimax_m3_vl_text",
        block="minimax_m3_vl.MiniMaxM3VLSparseMoeBlock",
        arrays=_BIASED,
    ),
    Row(
        name="step3p5",
        block="step3p7.Step3p7SparseMoeBlock",
        arrays=_BIASED,
        arguments={"layer_idx": 0},
    ),
    Row(name="hy_v3", block="hy_v3.HYV3MoE", arrays=_BLOCK_BIASED, **_SCALED),
    Row(
        name="dots3_note_vision_encoder",
        block="dots3_note.Dots3NoteVisionMoE",
        arrays=_BLOCK_BIASED,
        settings={"mlp_layer_types": ["sparse"]},
        arguments={"layer_idx": 0},
        **_SCALED,
    ),
    Row(
        name="afmoe",
        block="afmoe.AfmoeSparseMoeBlock",
        arrays={"router.gate.weight": "gate_weight", "expert_bias": "selection_bias"},
        router="router",
        slots="descending",
        **_SCALED,
    ),
    Row(
        name="laguna",
        block="laguna.LagunaSparseMoeBlock",
        arrays=_BIASED,
        presets=("laguna", "laguna_softcap"),
        logits="none",
    ),
    Row(
        name="lfm2_moe",
        block="lfm2_moe.Lfm2MoeSparseMoeBlock",
        arrays={**_GATE, "expert_bias": "selection_bias"},
        at="feed_forward",
        varies={"renormalize": (Renormalize(eps=1e-6), None), "scale": ANY},
        slots="descending",
    ),
    Row(
        name="muse_spark_text",
        block="muse_spark.MuseSparkMoE",
        arrays=_BIASED,
        logits="none",
        varies={"scale": ANY, **FLOAT32_GATE},
    ),
    Row(
        name="inkling2_text",
        block="inkling2.Inkling2SparseMoeBlock",
        arrays=_BIASED,
        varies={"scale": ANY, **FLOAT32_GATE},
    ),
    Row(
        name="flint",
        block="flint.FlintSparseMoeBlock",
        arrays=_GATE,
        varies={"renormalize": (_SUM, None), **FLOAT32_GATE},
        slots="descending",
    ),
    # Square root of softplus, with a selection bias or with experts from a table.
    Row(
        name="deepseek_v4",
        block="deepseek_v4.DeepseekV4SparseMoeBlock",
        arrays=_BIASED,
        settings={"mlp_layer_types": ["moe"]},
        arguments={"layer_idx": 0},
        **_V4,
    ),
    Row(
        name="deepseek_v4_hash",
        model_type="deepseek_v4",
        block="deepseek_v4.DeepseekV4SparseMoeBlock",
        arrays={**_GATE, "gate.tid2eid": "expert_table"},
        settings={"mlp_layer_types": ["hash_moe"], "eos_token_id": None},
        arguments={"layer_idx": 0},
        replays=None,
        **_V4,
    ),
)
"""Sigmoid with and without groups, sigmoid of the selected logits, square root of softplus."""

"""Rows of the routers whose scores, or weights, are a softmax."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.torch_replay import FORCED
from moe_routing.implementations.transformers.rows import FLOAT32_GATE, Row
from moe_routing.reference import Renormalize

_SUM, _SUM_EPS = Renormalize(), Renormalize(eps=1e-20)
_FLAG: dict[str, Any] = {"varies": {"renormalize": (_SUM, None)}}
_SCALED: dict[str, Any] = {"varies": {"scale": ANY}}
_GATE = {"gate.weight": "gate_weight"}
_ROUTER = {"router.weight": "gate_weight"}
_ERNIE = {**_GATE, "gate.moe_statics.e_score_correction_bias": "selection_bias"}
_GPT_OSS = {**_ROUTER, "router.bias": "gate_bias"}
_GEMMA: dict[str, Any] = {
    "arrays": {
        "proj.weight": "gate_weight",
        "scale": "hidden_scale",
        "per_expert_scale": "per_expert_scale",
    },
    "router": "",
    "calls": "router",
    "reads": "router",
    "logits": "none",
    "settings": {"layer_types": ["full_attention"]},
}
_QWEN: dict[str, Any] = {"arrays": _GATE}
_OCR: dict[str, Any] = {
    "arrays": _GATE,
    "settings": {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.0}},
}


def _granite(name: str, prefix: str, **others: Any) -> Row:
    return Row(
        name=name,
        block=f"{name}.{prefix}MoE",
        arrays=_ROUTER,
        router="router",
        at="block_sparse_moe",
        **others,
    )


_UNSORTED = (
    *("deepseek_v2", "deepseek_ocr2_text", "unlimited_ocr_text"),
    *("mistral4", "mistral_large4_text", "longcat_flash"),
)
"""The rows whose routers take a top-k with ``sorted=False``."""

_ROWS = (
    # Softmax over all experts, then top-k.
    Row(name="qwen2_moe", block="qwen2_moe.Qwen2MoeSparseMoeBlock", **_QWEN, **_FLAG),
    Row(name="qwen3_moe", block="qwen3_moe.Qwen3MoeSparseMoeBlock", **_QWEN, **_FLAG),
    Row(name="qwen3_next", block="qwen3_next.Qwen3NextSparseMoeBlock", **_QWEN, **_FLAG),
    Row(name="qwen3_5_moe_text", block="qwen3_5_moe.Qwen3_5MoeSparseMoeBlock", **_QWEN),
    Row(name="qwen3_vl_moe_text", block="qwen3_vl_moe.Qwen3VLMoeTextSparseMoeBlock", **_QWEN),
    Row(
        name="qwen3_omni_moe_text",
        block="qwen3_omni_moe.Qwen3OmniMoeThinkerTextSparseMoeBlock",
        **_QWEN,
        **_FLAG,
    ),
    Row(
        name="qwen3_omni_moe_talker_text",
        block="qwen3_omni_moe.Qwen3OmniMoeTalkerTextSparseMoeBlock",
        **_QWEN,
        **_FLAG,
    ),
    Row(name="qwen4_exp_text", block="qwen4_exp.Qwen4ExpTextSparseMoeBlock", **_QWEN, **_FLAG),
    Row(name="olmoe", block="olmoe.OlmoeSparseMoeBlock", **_QWEN, **_FLAG),
    Row(name="flex_olmo", block="flex_olmo.FlexOlmoSparseMoeBlock", **_QWEN, **_FLAG),
    Row(name="mellum", block="mellum.MellumSparseMoeBlock", **_QWEN, **_FLAG),
    Row(name="mixtral", block="mixtral.MixtralSparseMoeBlock", **_QWEN),
    Row(name="minimax", block="minimax.MiniMaxSparseMoeBlock", **_QWEN),
    Row(
        name="jamba",
        block="jamba.JambaSparseMoeBlock",
        arrays=_ROUTER,
        router="router",
        at="feed_forward",
    ),
    Row(
        name="hunyuan_v1_moe",
        block="hunyuan_v1_moe.HunYuanMoEV1Moe",
        arrays={"gate.wg.weight": "gate_weight"},
        varies=FLOAT32_GATE,
    ),
    Row(
        name="dbrx",
        block="dbrx.DbrxFFN",
        arrays={"router.layer.weight": "gate_weight"},
        router="router",
        at="ffn",
        nested="ffn_config",
        varies={"renormalize": (_SUM, None, Renormalize(order=2.0))},
    ),
    Row(name="gemma4_text", block="gemma4.Gemma4TextRouter", at="router", **_GEMMA),
    Row(
        name="diffusion_gemma_text",
        block="diffusion_gemma.DiffusionGemmaTextRouter",
        at="router",
        **_GEMMA,
    ),
    Row(
        name="switch_transformers",
        block="switch_transformers.SwitchTransformersSparseMLP",
        arrays={
            "router.classifier.weight": "gate_weight",
            "router.classifier.bias": "gate_bias",
        },
        router="router",
        reads="one-hot",
        limits=Limits(max_top_k=1),
        replays=None,
    ),
    # Softmax with groups or a selection bias.
    Row(
        name="deepseek_v2",
        block="deepseek_v2.DeepseekV2Moe",
        presets=("deepseek_v2", "deepseek_v2_lite"),
        varies={"renormalize": (None, _SUM_EPS), "scale": ANY},
        **_QWEN,
    ),
    Row(name="deepseek_ocr2_text", block="deepseek_ocr2.DeepseekOcr2TextMoe", **_OCR, **_SCALED),
    Row(name="unlimited_ocr_text", block="unlimited_ocr.UnlimitedOcrTextMoe", **_OCR, **_SCALED),
    Row(
        name="mistral4",
        block="mistral4.Mistral4MoE",
        varies={"renormalize": (_SUM_EPS, None), "scale": ANY},
        **_QWEN,
    ),
    Row(
        name="mistral_large4_text",
        block="mistral_large4.MistralLarge4TextMoE",
        varies={"scale": ANY, **FLOAT32_GATE},
        **_QWEN,
    ),
    Row(
        name="ernie4_5_moe",
        block="ernie4_5_moe.Ernie4_5_MoeSparseMoeBlock",
        arrays=_ERNIE,
        varies=FLOAT32_GATE,
    ),
    Row(
        name="ernie4_5_vl_moe_text",
        block="ernie4_5_vl_moe.Ernie4_5_VLMoeSparseMoeBlock",
        arrays=_ERNIE,
        at="mlp.text_moe",
        varies=FLOAT32_GATE,
        settings={"moe_intermediate_size": [1, 1]},
        arguments={"intermediate_size": 1},
    ),
    Row(
        name="longcat_flash",
        block="longcat_flash.LongcatFlashMoE",
        arrays={
            "router.classifier.weight": "gate_weight",
            "router.classifier.bias": "gate_bias",
            "router.e_score_correction_bias": "selection_bias",
        },
        router="router",
        varies={"scale": ANY, "gate_bias": (False, True)},
    ),
    # Top-k of the logits, then a softmax of the selected ones.
    Row(name="gpt_oss", block="gpt_oss.GptOssMLP", arrays=_GPT_OSS, router="router"),
    Row(
        name="openai_privacy_filter",
        block="openai_privacy_filter.OpenAIPrivacyFilterMLP",
        arrays=_GPT_OSS,
        router="router",
        reads="divided",
    ),
    Row(name="aria_text", block="aria.AriaTextMoELayer", arrays=_ROUTER, router="router"),
    _granite("granitemoe", "GraniteMoe"),
    _granite("granitemoe_swa", "GraniteMoeSWA"),
    _granite("granitemoeshared", "GraniteMoeShared"),
    _granite(
        "granitemoehybrid",
        "GraniteMoeHybrid",
        settings={"mamba_n_heads": 1, "mamba_d_head": "auto", "layer_types": ["attention"]},
    ),
    Row(
        name="jetmoe",
        block="jetmoe.JetMoeMoE",
        arrays={"router.layer.weight": "gate_weight"},
        router="router",
        calls="router",
        reads="sorted",
        replays=replace(FORCED, repeats=(False,)),
    ),
    Row(
        name="cohere2_moe",
        block="cohere2_moe.Cohere2MoeSparseMoeBlock",
        presets=("cohere2_moe", "cohere2_moe_softmax"),
        **_QWEN,
    ),
)

ROWS = tuple(row if row.name in _UNSORTED else replace(row, slots="descending") for row in _ROWS)
"""Softmax over all experts, with groups or a bias, and over the selected logits."""

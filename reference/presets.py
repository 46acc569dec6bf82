"""Presets: the routers of shipped models, with their published sizes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from moe_routing.reference.checks import shown
from moe_routing.reference.config import Groups, Renormalize, RmsNorm, RouterConfig
from moe_routing.reference.inputs import BiasOn


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A shipped router: its configuration, and which optional inputs it has.

    ``hidden_size`` is H of the published checkpoint. ``selection_bias`` is where the
    model keeps it, or None; the other flags say which arrays of ``RouterInputs`` the
    model has. ``source`` names the checkpoint that the sizes come from, or says that they
    are the defaults of the configuration class.
    """

    config: RouterConfig
    hidden_size: int
    selection_bias: BiasOn | None = None
    gate_bias: bool = False
    per_expert_scale: bool = False
    expert_table: bool = False
    source: str


_OPTIONAL = ("selection_bias", "gate_bias", "per_expert_scale", "expert_table")
_SUM = Renormalize()
_SUM_EPS = Renormalize(eps=1e-20)
_ONE_GROUP = Groups(count=1, kept=1)
_4_OF_8 = Groups(count=8, kept=4)

_Fields = dict[str, Any]
_CAST_BACK: _Fields = {"logits_dtype": "input", "weights_dtype": "input"}
_NATIVE: _Fields = {**_CAST_BACK, "scores_dtype": "input"}
_NATIVE_LOGITS: _Fields = {"logits_dtype": "input"}
_WIDE_WEIGHTS: _Fields = {"weights_dtype": "float32"}
_ON_BLOCK: _Fields = {"selection_bias": "block"}
_V2: _Fields = {
    "groups": Groups(count=8, kept=3, top=1, fill=0.0),
    "weights_from": "masked_scores",
    "scale": 16.0,
}
_MISTRAL: _Fields = {"groups": Groups(count=1, kept=1, fill=0.0), "renormalize": _SUM_EPS}
_ERNIE: _Fields = {
    "renormalize": Renormalize(floor=1e-12),
    "weights_dtype": "input",
    "selection_bias": "statics",
}
_GEMMA: _Fields = {**_WIDE_WEIGHTS, "input_norm": RmsNorm(eps=1e-6), "per_expert_scale": True}
_PRIVACY: _Fields = {**_WIDE_WEIGHTS, "logits_dtype": "float32", "gate_bias": True, "scale": 0.25}
_MUSE: _Fields = {"renormalize": Renormalize(eps=1e-15), "logit_multiplier": 2.0**-2.5}
_V4: _Fields = {**_NATIVE, "score": "sqrtsoftplus", "renormalize": _SUM_EPS, "scale": 1.5}


def _preset(e: int, k: int, h: int, source: str, **fields: Any) -> Preset:
    """Make a preset of E, K and H; ``fields`` are those of RouterConfig and of Preset."""
    optional = {name: fields.pop(name) for name in _OPTIONAL if name in fields}
    config = RouterConfig(num_experts=e, top_k=k, **fields)
    return Preset(config=config, hidden_size=h, source=source, **optional)


def _softmax(
    e: int, k: int, h: int, source: str, renormalize: Renormalize | None = None, **fields: Any
) -> Preset:
    """Take native logits and a float32 softmax, and cast the weights back (Qwen)."""
    return _preset(e, k, h, source, renormalize=renormalize, **{**_CAST_BACK, **fields})


def _late_softmax(e: int, k: int, h: int, source: str, **fields: Any) -> Preset:
    """Select on native logits; weigh by the softmax of the selected ones (Granite)."""
    late = {"score": "identity", "weights_from": "softmax_of_selected", **fields}
    return _softmax(e, k, h, source, **late)


def _late_sigmoid(e: int, k: int, h: int, source: str, **fields: Any) -> Preset:
    """Select on logits; weigh by the sigmoid of the selected ones (Llama 4)."""
    late = {"score": "identity", "weights_from": "sigmoid_of_selected", **fields}
    return _preset(e, k, h, source, **late)


def _sigmoid(
    e: int, k: int, h: int, source: str, renormalize: Renormalize = _SUM_EPS, **fields: Any
) -> Preset:
    """Take a float32 sigmoid, select on it plus a bias, and renormalise (Hy3)."""
    biased = {"score": "sigmoid", "selection_bias": "gate", **fields}
    return _preset(e, k, h, source, renormalize=renormalize, **biased)


def _v3(
    e: int, k: int, h: int, source: str, scale: float = 1.0, groups: Groups | None = _ONE_GROUP
) -> Preset:
    """Do as ``_sigmoid``, within groups: they are evaluated even if there is just one."""
    return _sigmoid(e, k, h, source, scale=scale, groups=groups)


# Rows read E, K, H, checkpoint. A factor that a block applies to its output is no router's scale.
PRESETS: dict[str, Preset] = {
    # Softmax over all experts, then top-k.
    "qwen2_moe": _softmax(60, 4, 2048, "Qwen/Qwen1.5-MoE-A2.7B"),
    "qwen3_moe": _softmax(128, 8, 2048, "Qwen/Qwen3-30B-A3B", _SUM),
    "qwen3_next": _softmax(512, 10, 2048, "Qwen/Qwen3-Next-80B-A3B-Instruct", _SUM),
    "qwen3_5_moe_text": _softmax(256, 8, 2048, "Qwen/Qwen3.5-35B-A3B", _SUM),
    "qwen3_vl_moe_text": _softmax(128, 8, 2048, "Qwen/Qwen3-VL-30B-A3B-Instruct", _SUM),
    "qwen3_omni_moe_text": _softmax(128, 8, 2048, "Qwen/Qwen3-Omni-30B-A3B-Instruct", _SUM),
    "qwen3_omni_moe_talker_text": _softmax(128, 6, 1024, "Qwen/Qwen3-Omni-30B-A3B-Instruct", _SUM),
    "qwen4_exp_text": _softmax(512, 10, 2560, "Qwen/Qwen3.8-Flash-Next", _SUM),
    "olmoe": _softmax(64, 8, 2048, "allenai/OLMoE-1B-7B-0924"),
    "flex_olmo": _softmax(7, 5, 4096, "allenai/FlexOlmo-7x7B-1T"),
    "mellum": _softmax(64, 8, 2304, "JetBrains/Mellum2-12B-A2.5B-Base", _SUM),
    "jamba": _softmax(16, 2, 4096, "ai21labs/Jamba-v0.1"),
    "mixtral": _softmax(8, 2, 4096, "mistralai/Mixtral-8x7B-v0.1", _SUM, **_WIDE_WEIGHTS),
    "minimax": _softmax(32, 2, 6144, "MiniMaxAI/MiniMax-Text-01-hf", _SUM, **_WIDE_WEIGHTS),
    "hunyuan_v1_moe": _preset(64, 8, 4096, "tencent/Hunyuan-A13B-Instruct", renormalize=_SUM),
    "dbrx": _softmax(16, 4, 6144, "databricks/dbrx-instruct", _SUM, **_NATIVE),
    "gemma4_text": _softmax(128, 8, 2816, "google/gemma-4-26B-A4B-it", _SUM, **_GEMMA),
    "diffusion_gemma_text": _softmax(
        128, 8, 2816, "google/diffusiongemma-26B-A4B-it", _SUM, **_GEMMA
    ),
    # Softmax with groups or a selection bias.
    "deepseek_v2": _preset(160, 6, 5120, "deepseek-ai/DeepSeek-V2", **_V2),
    "deepseek_v2_lite": _preset(64, 6, 2048, "deepseek-ai/DeepSeek-V2-Lite"),
    "deepseek_ocr2_text": _preset(64, 6, 1280, "deepseek-community/DeepSeek-OCR-2"),
    "unlimited_ocr_text": _preset(64, 6, 1280, "baidu/Unlimited-OCR"),
    "mistral4": _preset(128, 4, 4096, "mistralai/Mistral-Small-4-119B-2603", **_MISTRAL, **_NATIVE),
    "mistral_large4_text": _preset(128, 4, 6144, "mistralai/Mistral-Large-4-1T-A52B", **_MISTRAL),
    "ernie4_5_moe": _preset(64, 6, 2560, "baidu/ERNIE-4.5-21B-A3B-PT", **_ERNIE),
    "ernie4_5_vl_moe_text": _preset(64, 6, 2560, "baidu/ERNIE-4.5-VL-28B-A3B-PT", **_ERNIE),
    "longcat_flash": _preset(  # 512 experts and 256 that return their input
        768, 12, 6144, "meituan-longcat/LongCat-Flash-Chat", scale=6.0, selection_bias="gate"
    ),
    # Top-k of the logits, then softmax or sigmoid of the selected ones.
    "gpt_oss": _late_softmax(128, 4, 2880, "openai/gpt-oss-120b", **_NATIVE, gate_bias=True),
    "openai_privacy_filter": _late_softmax(  # divides by K, and its block multiplies by K
        128, 4, 640, "openai/privacy-filter", **_PRIVACY
    ),
    "aria_text": _late_softmax(64, 6, 2560, "rhymes-ai/Aria", **_NATIVE),
    "granitemoe": _late_softmax(40, 8, 1536, "ibm-granite/granite-3.1-3b-a800m-instruct"),
    "granitemoe_swa": _late_softmax(48, 4, 1280, "ibm-granite/granite-swash-3b-a600m"),
    "granitemoeshared": _late_softmax(8, 2, 4096, "configuration default"),
    "granitemoehybrid": _late_softmax(72, 10, 4096, "ibm-granite/granite-4.0-h-small"),
    "jetmoe": _late_softmax(8, 2, 2048, "jetmoe/jetmoe-8b"),
    "cohere2_moe": _late_sigmoid(  # the class also offers, and defaults to, softmax
        128, 8, 4096, "CohereLabs/command-a-plus-05-2026", renormalize=_SUM, **_NATIVE
    ),
    "cohere2_moe_softmax": _late_softmax(8, 2, 8192, "configuration default"),
    "llama4_text": _late_sigmoid(16, 1, 5120, "meta-llama/Llama-4-Scout-17B-16E", **_CAST_BACK),
    "kolibri1": _late_sigmoid(384, 6, 2560, "Aleph-Alpha/Kolibri-1", selection_bias="gate"),
    # Sigmoid with a selection bias and groups.
    "deepseek_v3": _v3(256, 8, 7168, "deepseek-ai/DeepSeek-V3", 2.5, _4_OF_8),
    "deepseek_v32": _v3(256, 8, 7168, "deepseek-ai/DeepSeek-V3.2-Exp", 2.5, _4_OF_8),
    "kimi_k2": _v3(384, 8, 7168, "moonshotai/Kimi-K2-Instruct", 2.827),
    "kimi_k25": _v3(384, 8, 7168, "moonshotai/Kimi-K2.6", 2.827),
    "glm4_moe": _v3(160, 8, 5120, "zai-org/GLM-4.5", 2.5),
    "glm4_moe_lite": _v3(64, 4, 2048, "zai-org/GLM-4.7-Flash", 1.8),
    "glm4v_moe_text": _v3(128, 8, 4096, "zai-org/GLM-4.5V"),
    "glm_moe_dsa": _v3(256, 8, 6144, "zai-org/GLM-5", 2.5),
    "glm5_next_text": _v3(288, 8, 4096, "zai-org/GLM-5.3-Flash", 2.5),
    "dots1": _v3(128, 6, 4096, "rednote-hilab/dots.llm1.base", 2.5),
    "dots3_note_text": _v3(256, 8, 5120, "dots-studio/dots3-note-prev"),
    "solar_open": _v3(128, 8, 4096, "upstage/Solar-Open-100B"),
    "mimo_v2_flash": _v3(256, 8, 4096, "XiaomiMiMo/MiMo-V2-Flash"),
    "hy_v4": _v3(256, 8, 2816, "configuration default", 2.827),
    "nemotron_h": _v3(128, 6, 2688, "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 2.5),
    "bailing_hybrid": _v3(512, 8, 2560, "inclusionAI/Ling-3.0-Flash", 2.5, _4_OF_8),
    "kimi_linear": _v3(256, 8, 2304, "moonshotai/Kimi-Linear-48B-A3B-Instruct", 2.446),
    "exaone_moe": _v3(128, 8, 6144, "LGAI-EXAONE/K-EXAONE-236B-A23B", 2.5),
    "axk1": _v3(192, 8, 7168, "skt/A.X-K1", 2.5, _4_OF_8),
    "axk2": _v3(256, 8, 7168, "skt/A.X-K2", 2.5, Groups(count=8, kept=4, fill=0.0)),
    "axk2_light": _v3(128, 8, 2048, "skt/A.X-K2-Light", 2.5, None),
    "beam": _v3(256, 8, 5120, "reflection/Beam-1.0-501B-A23B", 1.0, _4_OF_8),
    # Sigmoid without groups.
    "minimax_m2": _sigmoid(
        256, 8, 3072, "MiniMaxAI/MiniMax-M2", _SUM, **_NATIVE_LOGITS, **_ON_BLOCK
    ),
    "minimax_m3_vl_text": _sigmoid(128, 4, 6144, "MiniMaxAI/MiniMax-M3", _SUM, **_NATIVE_LOGITS),
    "step3p5": _sigmoid(288, 8, 4096, "stepfun-ai/Step-3.7-Flash", _SUM, **_NATIVE_LOGITS),
    "hy_v3": _sigmoid(192, 8, 4096, "tencent/Hy3-preview", scale=2.826, **_ON_BLOCK),
    "dots3_note_vision_encoder": _sigmoid(64, 2, 1536, "dots-studio/dots3-note-prev", **_ON_BLOCK),
    "afmoe": _sigmoid(
        128, 8, 2048, "arcee-ai/Trinity-Mini", scale=2.826, **_NATIVE_LOGITS, **_ON_BLOCK
    ),
    "laguna": _sigmoid(256, 8, 2048, "poolside/laguna-XS.2", _SUM, **_CAST_BACK),
    "laguna_softcap": _sigmoid(  # the option that no release switches on, with a cap that bites
        256, 8, 2048, "poolside/laguna-XS.2", _SUM, **_CAST_BACK, logit_softcap=5.0
    ),
    "lfm2_moe": _sigmoid(
        32, 4, 2048, "LiquidAI/LFM2-8B-A1B", Renormalize(eps=1e-6), **_NATIVE, **_ON_BLOCK
    ),
    "muse_spark_text": _sigmoid(256, 8, 8192, "meta-models/Muse-Spark-Open-816B-A42B", **_MUSE),
    "inkling2_text": _sigmoid(384, 8, 4608, "thinkingmachines/Inkling-2-Small-MXFP8", scale=8.0),
    "flint": _sigmoid(256, 6, 2048, "RecursiveSI/flint", _SUM, selection_bias=None),
    # Square root of softplus, with a selection bias or with experts from a table.
    "deepseek_v4": _preset(
        256, 6, 4096, "deepseek-ai/DeepSeek-V4-Flash-Base", **_V4, selection_bias="gate"
    ),
    "deepseek_v4_hash": _preset(
        256, 6, 4096, "deepseek-ai/DeepSeek-V4-Flash-Base", **_V4, expert_table=True
    ),
}
"""Every preset by its model type."""


def preset(name: str) -> Preset:
    """Return the preset of a model type such as ``deepseek_v3``.

    Errors: ``ValueError``, with the nearest names where ``name`` is no preset's.
    """
    if not isinstance(name, str):
        raise ValueError(f"Expected the name of a preset but got {shown(name)}: {_some_names()}")
    if name not in PRESETS:
        near = ", ".join(difflib.get_close_matches(name, PRESETS, n=3))
        hint = f"did you mean {near}?" if near else _some_names()
        raise ValueError(f"Unknown preset {shown(name)}: {hint}")
    return PRESETS[name]


def _some_names() -> str:
    some = ", ".join(sorted(PRESETS)[:3])
    return f"{some} ... are among {len(PRESETS)} presets; see moe_routing.reference.PRESETS"

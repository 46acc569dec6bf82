"""A small random model of every family that the table of transformers has."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from moe_routing.implementations.models.opening import random_model
from moe_routing.implementations.models.shrinking import TOKENS, shrunk
from moe_routing.implementations.transformers.table import ROWS

HIDDEN = 64

_CLASSES = {
    "qwen3_omni_moe_text": "Qwen3OmniMoeThinkerTextModel",
    "qwen3_omni_moe_talker_text": "Qwen3OmniMoeTalkerModel",
    "diffusion_gemma_text": "DiffusionGemmaEncoderTextModel",
    "deepseek_ocr2_text": "DeepseekOcr2TextModel",
    "unlimited_ocr_text": "UnlimitedOcrTextModel",
    "ernie4_5_vl_moe_text": "Ernie4_5_VLMoeTextModel",
    "step3p5": "Step3p7TextModel",
    "dots3_note_vision_encoder": "Dots3NoteVisionModel",
}
"""The classes of the families that AutoModel has none for: parts of larger models."""

_GREEDY = {"num_experts_per_tok": 4, "n_group": 1, "topk_group": 1, "topk_method": "greedy"}
_DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_LACKING: dict[str, dict[str, Any]] = {
    "qwen4_exp_text": {
        "head_dim": 16,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 32},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"moe_num_experts": 8, "moe_top_k": 2, "ffn_hidden_size": 32},
    },
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense"] + ["sparse"] * 31, **_GREEDY},
    "unlimited_ocr_text": _GREEDY,
    "ernie4_5_vl_moe_text": {
        "rope_parameters": {**_DEFAULT_ROPE, "mrope_section": [22, 22, 20]},
    },
    "glm4v_moe_text": {
        "rope_parameters": {
            **_DEFAULT_ROPE,
            "partial_rotary_factor": 0.5,
            "mrope_section": [8, 12, 12],
        },
        "head_dim": 128,
    },
    "step3p5": {"sliding_window": 512},
    "deepseek_v2": {
        "num_experts_per_tok": 6,
        "n_group": 8,
        "topk_group": 3,
        "topk_method": "group_limited_greedy",
    },
    "hunyuan_v1_moe": {"head_dim": 16, "num_experts": 16, "moe_topk": 2},
    "dots1": {"n_routed_experts": 16, "num_experts_per_tok": 4, "n_shared_experts": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "gemma4_text": {
        "enable_moe_block": True,
        "num_experts": 16,
        "top_k_experts": 4,
        "moe_intermediate_size": 32,
    },
    "diffusion_gemma_text": {"num_experts": 16, "top_k_experts": 4, "moe_intermediate_size": 32},
}
"""What the defaults of a configuration class lack and its published models have."""

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_MOST = {**dict.fromkeys(_EXPERTS, 16), "zero_expert_num": 8, "moe_topk": 4, "moe_k": 4}
_MOST |= {"num_experts_per_tok": 4, "num_experts_per_token": 4, "n_group": 4, "topk_group": 2}


_MADE = ("model_type", "transformers_version", "architectures", "dtype", "id2label", "label2id")


def tiny_config(name: str, **settings: Any) -> Any:
    """Return a family's configuration, shrunk, with 16 experts at the most."""
    auto: Any = import_module("transformers.models.auto.configuration_auto")
    config = shrunk(auto.CONFIG_MAPPING[ROWS[name].config_type](**_LACKING.get(name, {})), 2)
    fewer = {
        key: min(value, _MOST[key])
        for key, value in config.to_dict().items()
        if key in _MOST and isinstance(value, int)
    }
    whole = {**config.to_dict(), **fewer, **settings}
    return type(config)(**{k: v for k, v in whole.items() if k not in _MADE})


def tiny_model(name: str, dtype: str = "float32", seed: int = 0, **settings: Any) -> Any:
    """Return a small random model of a family, in evaluation mode."""
    import torch

    return random_model(_class(name), tiny_config(name, **settings), getattr(torch, dtype), seed)


def batch_for(name: str, model: Any, tokens: int = 24, seed: int = 0) -> dict[str, Any]:
    """Return a batch for the model of a family."""
    import torch

    made = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    if name == "qwen3_omni_moe_talker_text":
        return {"inputs_embeds": torch.randn(1, tokens, HIDDEN, generator=made).to(dtype)}
    if name == "dots3_note_vision_encoder":
        pixels = torch.randn(16, 3 * 14 * 14, generator=made).to(dtype)
        return {"pixel_values": pixels, "grid_thw": torch.tensor([[1, 4, 4]])}
    ids = torch.randint(0, TOKENS, (1, tokens), generator=made)
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    return {"input_ids": ids, **more}


def _class(name: str) -> Any:
    auto: Any = import_module("transformers.models.auto.modeling_auto")
    row = ROWS[name]
    family = row.block.partition(".")[0]
    module = import_module(f"transformers.models.{family}.modeling_{family}")
    for mapping in (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_MAPPING_NAMES):
        found = _CLASSES.get(name) or mapping.get(row.config_type)
        if found is not None and hasattr(module, found):
            return getattr(module, found)
    raise LookupError(f"no class for {name}")

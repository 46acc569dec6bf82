"""Presets of a model's own ``config.json``: as the configuration classes have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moe_routing.implementations import Claim
from moe_routing.reference import (
    MODEL_TYPES,
    PRESETS,
    Groups,
    Renormalize,
    preset,
    preset_of_config,
)

# As published, without the settings that have nothing to do with routing.
MIXTRAL = {"model_type": "mixtral", "hidden_size": 4096, "num_local_experts": 8}
MIXTRAL |= {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.02}
DEEPSEEK_V3 = {"model_type": "deepseek_v3", "hidden_size": 7168, "n_routed_experts": 256}
DEEPSEEK_V3 |= {"num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "norm_topk_prob": True}
DEEPSEEK_V3 |= {"routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}
KIMI_K2 = {**DEEPSEEK_V3, "model_type": "kimi_k2", "n_routed_experts": 384, "n_group": 1}
KIMI_K2 |= {"topk_group": 1, "routed_scaling_factor": 2.827}
GLM_45 = {"model_type": "glm4_moe", "hidden_size": 5120, "n_routed_experts": 160, "n_group": 1}
GLM_45 |= {"num_experts_per_tok": 8, "topk_group": 1, "norm_topk_prob": True}
GLM_45 |= {"routed_scaling_factor": 2.5}
GPT_OSS = {"model_type": "gpt_oss", "hidden_size": 2880, "num_local_experts": 128}
GPT_OSS |= {"num_experts_per_tok": 4, "experts_per_token": 4}
LLAMA_4 = {"model_type": "llama4_text", "hidden_size": 5120, "num_local_experts": 16}
LLAMA_4 |= {"num_experts_per_tok": 1}
GEMMA_4 = {"model_type": "gemma4_text", "enable_moe_block": True, "hidden_size": 2816}
GEMMA_4 |= {"num_experts": 128, "top_k_experts": 8, "rms_norm_eps": 1e-6}
LFM_2 = {"model_type": "lfm2_moe", "hidden_size": 2048, "num_experts": 32, "num_experts_per_tok": 4}
LFM_2 |= {"use_expert_bias": True, "norm_topk_prob": True, "routed_scaling_factor": 1.0}
PUBLISHED: dict[str, dict[str, Any]] = {
    "mixtral": MIXTRAL,
    "deepseek_v3": DEEPSEEK_V3,
    "gpt_oss": GPT_OSS,
    "kimi_k2": KIMI_K2,
    "glm4_moe": GLM_45,
    "llama4_text": LLAMA_4,
    "gemma4_text": GEMMA_4,
    "lfm2_moe": LFM_2,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_its_preset(name: str) -> None:
    assert preset_of_config(PUBLISHED[name]).config == preset(name).config
    assert Claim.of_config(PUBLISHED[name]) == Claim.of_preset(name)


@pytest.mark.parametrize(
    ("whole_type", "name"),
    [("gemma4", "gemma4_text"), ("llama4", "llama4_text"), ("kimi_k25", "kimi_k2")],
)
def test_the_text_part_of_a_model_that_sees_counts(
    whole_type: str, name: str, tmp_path: Path
) -> None:
    seen = {"model_type": "siglip", "hidden_size": 1152}
    whole = {
        "model_type": whole_type,
        "vision_config": seen,
        "text_config": PUBLISHED[name],
    }
    (tmp_path / "config.json").write_text(json.dumps(whole))
    for path in (tmp_path, tmp_path / "config.json", str(tmp_path)):
        found = preset_of_config(path)
        assert found.config == preset(name).config
        assert found.source == str(tmp_path / "config.json")


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no groups": ({**DEEPSEEK_V3, "n_group": None}, {"groups": None}),
    "other groups": (
        {**DEEPSEEK_V3, "n_group": 4, "topk_group": 2},
        {"groups": Groups(count=4, kept=2)},
    ),
    "not normalised": ({**DEEPSEEK_V3, "norm_topk_prob": False}, {"renormalize": None}),
    "normalised": (
        {**MIXTRAL, "model_type": "qwen2_moe", "norm_topk_prob": True},
        {"renormalize": Renormalize()},
    ),
    "normalised as transformers would": (
        {**DEEPSEEK_V3, "model_type": "deepseek_v2", "topk_method": "greedy"},
        {"renormalize": Renormalize(eps=1e-20), "groups": None},
    ),
    "the flag is left out": ({**MIXTRAL, "model_type": "qwen3_moe"}, {"renormalize": None}),
    "the factor is left out": ({**MIXTRAL, "model_type": "glm4_moe"}, {"scale": 1.0}),
    "a factor of its own": ({**DEEPSEEK_V3, "routed_scaling_factor": 9}, {"scale": 9}),
    "soft cap": (
        {**MIXTRAL, "model_type": "laguna", "moe_router_logit_softcapping": 3.0},
        {"logit_softcap": 3.0},
    ),
    "by the 2-norm": (
        {
            "model_type": "dbrx",
            "d_model": 8,
            "ffn_config": {
                "moe_num_experts": 4,
                "moe_top_k": 2,
                "moe_normalize_expert_weights": 2.0,
            },
        },
        {"renormalize": Renormalize(order=2.0), "num_experts": 4, "top_k": 2},
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_read(name: str) -> None:
    given, wanted = OPTIONS[name]
    config = preset_of_config(given).config
    assert {axis: getattr(config, axis) for axis in wanted} == wanted


def test_a_bias_that_is_off_is_not_claimed() -> None:
    assert Claim.of_config({**LFM_2, "use_expert_bias": False}).selection_bias == ("none",)


BAD: dict[str, tuple[Any, str]] = {
    "unknown": (
        {**MIXTRAL, "model_type": "mixtrel"},
        "Unknown model_type 'mixtrel' in the configuration: known are mixtral",
    ),
    "a dense model": (
        {**GEMMA_4, "enable_moe_block": False},
        "the configuration is of a model without experts: gemma4_text",
    ),
    "no model type": ({"hidden_size": 3}, "Cannot find a model_type in the configuration"),
    "empty": ({}, "Cannot find a model_type in the configuration"),
    "no K": ({**MIXTRAL, "num_experts_per_tok": None}, "no top_k is stated"),
    "a word for E": ({**MIXTRAL, "num_local_experts": "8"}, "Expected num_experts to be an int"),
    "K above E": ({**MIXTRAL, "num_experts_per_tok": 9}, "top_k=9 > num_experts=8"),
    "a word for groups": ({**DEEPSEEK_V3, "n_group": "8"}, "Expected Groups.count to be an int"),
    "a list": ([MIXTRAL], "Expected config to be a path or a dict but got"),
    "None": (None, "Expected config to be a path or a dict but got None"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_such_configuration_is_refused_in_one_line(name: str) -> None:
    given, words = BAD[name]
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        preset_of_config(given)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", b"\xff\xfe"])
def test_a_file_that_is_no_object_is_refused_with_its_name(
    text: str | bytes, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"{path}[^\n]*$"):
        Claim.of_config(path)


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Claim.of_config(tmp_path / "config.json")


# Against transformers.

FLAGS = ("norm_topk_prob", "moe_renormalize", "n_group", "num_expert_group", "topk_group")
FLAGS += ("routed_scaling_factor", "route_scale", "router_scaling_factor", "topk_method")
FLAGS += ("use_expert_bias", "router_bias", "scoring_func", "expert_selection_fn")
FLAGS += ("moe_norm_min", "moe_router_logit_softcapping", "output_multiplier")
UNOWNED = {"kimi_k2"}
"""Whose class is in the repository of the model, not in transformers."""


@pytest.mark.parametrize("model_type", sorted(set(MODEL_TYPES) - UNOWNED))
def test_what_is_left_out_is_the_default_of_its_class(model_type: str) -> None:
    auto = pytest.importorskip("transformers.models.auto.configuration_auto")
    if model_type not in auto.CONFIG_MAPPING:
        pytest.skip(f"transformers has no {model_type}")
    sizes = {"num_experts": 64, "num_local_experts": 64, "n_routed_experts": 64}
    sizes |= {"num_experts_per_tok": 4, "num_experts_per_token": 4, "moe_topk": 4}
    whole = {**auto.CONFIG_MAPPING[model_type]().to_dict(), "top_k_experts": 4, **sizes}
    whole["enable_moe_block"] = True
    bare = {key: value for key, value in whole.items() if key not in FLAGS}
    assert preset_of_config(bare) == preset_of_config(whole)


def test_every_preset_but_a_few_is_of_a_model_type() -> None:
    assert sorted(set(PRESETS) - set(MODEL_TYPES)) == [
        "axk2_light",
        "cohere2_moe_softmax",
        "deepseek_v2_lite",
        "deepseek_v4_hash",
        "kimi_k25",
        "kimi_k3",
        "laguna_softcap",
    ]

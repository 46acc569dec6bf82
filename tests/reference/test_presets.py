"""The presets: every one routes, and says what its configuration class says.

``tests/implementations/test_transformers_routers.py`` holds them to the routers themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moe_routing.reference import PRESETS, Preset, RouterInputs, preset, route

T, H, V = 16, 32, 40

MODEL_TYPES = {
    "axk2_light": "axk2",
    "cohere2_moe_softmax": "cohere2_moe",
    "deepseek_v2_lite": "deepseek_v2",
    "deepseek_v4_hash": "deepseek_v4",
    "kimi_k2": "deepseek_v3",
    "kimi_k25": "deepseek_v3",
    "kimi_k3": "kimi_linear",
    "laguna_softcap": "laguna",
}
"""The model type that owns the router, where the preset is not named after it."""

DEFAULTS_DIFFER = {
    *("afmoe", "aria_text", "axk2", "cohere2_moe", "dbrx", "deepseek_ocr2_text", "deepseek_v2"),
    *("deepseek_v2_lite", "diffusion_gemma_text", "dots1", "exaone_moe", "gemma4_text"),
    *("glm4_moe", "granitemoe", "granitemoe_swa", "granitemoehybrid", "hunyuan_v1_moe"),
    *(
        "kimi_k2",
        "kimi_k25",
        "kimi_k3",
        "minimax",
        "nemotron_h",
        "qwen3_moe",
        "qwen3_omni_moe_talker_text",
    ),
    *("qwen3_vl_moe_text", "qwen4_exp_text"),
}
"""Where the configuration class defaults to sizes or flags that the checkpoint has not."""

SCALES_OUTPUT = {"beam", "minimax_m3_vl_text"}
"""Whose factor the block applies to its output, so that the router has none."""

ALWAYS_ONE = {"switch_transformers"}
"""Whose router takes the best expert, so that the configuration has no K."""

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k")
TOP_K += ("top_k_experts",)
SCALE = ("routed_scaling_factor", "route_scale", "router_scaling_factor")
NORM = ("norm_topk_prob", "moe_renormalize")
COUNT, KEPT = ("n_group", "num_expert_group"), ("topk_group",)

EVERY = pytest.mark.parametrize("name", sorted(PRESETS))


@EVERY
def test_preset_routes_at_its_published_sizes(name: str) -> None:
    chosen = preset(name)
    done = route(chosen.config, draw(chosen))
    experts, top_k = chosen.config.num_experts, chosen.config.top_k
    assert done.expert_ids.shape == done.weights.shape == (T, top_k), "expected [T, K]"
    assert ((done.expert_ids >= 0) & (done.expert_ids < experts)).all(), "ids must be in [0, E)"
    assert np.isfinite(done.weights).all(), "random normals cannot overflow"
    if not chosen.expert_table:
        distinct = [len(set(row)) == top_k for row in done.expert_ids.tolist()]
        assert all(distinct), f"token {distinct.index(False)} selects an expert twice"


@EVERY
def test_preset_agrees_with_the_defaults_of_its_configuration_class(name: str) -> None:
    auto = pytest.importorskip("transformers.models.auto.configuration_auto")
    defaults = auto.CONFIG_MAPPING[MODEL_TYPES.get(name, name)]().to_dict()
    said = stated(preset(name), defaults | defaults.get("ffn_config", {}))
    if name in SCALES_OUTPUT:
        del said["scale"]
    wanted = {"H", "E"} if name in ALWAYS_ONE else {"H", "E", "K"}
    assert wanted <= set(said), f"the configuration states only {sorted(said)}"
    differing = {key: pair for key, pair in said.items() if pair[0] != pair[1]}
    assert bool(differing) == (name in DEFAULTS_DIFFER), f"(preset, default) are {differing}"


def test_unknown_preset_suggests_a_near_name() -> None:
    with pytest.raises(ValueError, match=r"'deepseek_v33': did you mean .*deepseek_v3"):
        preset("deepseek_v33")


def draw(chosen: Preset) -> RouterInputs:
    """Draw random normals for every array that ``chosen`` has, at its E and K but a small H."""
    rng, experts = np.random.default_rng(20), chosen.config.num_experts

    def normal(*shape: int, scale: float = 1.0, mean: float = 0.0) -> Any:
        return rng.normal(mean, scale, shape).astype(np.float32)

    arrays: dict[str, Any] = {"hidden": normal(T, H), "gate_weight": normal(experts, H, scale=0.3)}
    if chosen.selection_bias:
        arrays["selection_bias"] = normal(experts, scale=0.1)
        arrays["selection_bias_on"] = chosen.selection_bias
    if chosen.gate_bias:
        arrays["gate_bias"] = normal(experts)
    if chosen.per_expert_scale:
        arrays["per_expert_scale"] = normal(experts, scale=0.2, mean=1.0)
    if chosen.config.input_norm:
        arrays["hidden_scale"] = normal(H, mean=5.0)
    if chosen.expert_table:
        arrays["expert_table"] = rng.integers(experts, size=(V, chosen.config.top_k))
        arrays["token_ids"] = rng.integers(V, size=T)
    return RouterInputs(**arrays)


def stated(chosen: Preset, values: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Pair what the preset says with what a configuration says, wherever that says it."""
    config, groups = chosen.config, chosen.config.groups
    ours = {
        "H": (chosen.hidden_size, ("hidden_size", "d_model")),
        "E": (config.num_experts - values.get("zero_expert_num", 0), EXPERTS),
        "K": (config.top_k, TOP_K),
        "scale": (config.scale, SCALE),
        "multiplier": (config.logit_multiplier, ("output_multiplier",)),
        "floor": (config.renormalize and config.renormalize.floor, ("moe_norm_min",)),
    }
    if config.weights_from != "softmax_of_selected":
        ours["normalised"] = (config.renormalize is not None, NORM)
    if values.get("topk_method") != "greedy":
        ours |= {"count": (groups and groups.count, COUNT), "kept": (groups and groups.kept, KEPT)}
    found = {key: [values[n] for n in names if n in values] for key, (_, names) in ours.items()}
    return {key: (ours[key][0], values[0]) for key, values in found.items() if values}

"""The presets: every one routes, and says what the shipped router and its configuration say."""

from __future__ import annotations

import importlib
import inspect
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moe_routing.reference import FORMATS, PRESETS, Preset, RouterInputs, preset, route, stages

T, H, V = 16, 32, 40

MODEL_TYPES = {
    "axk2_light": "axk2",
    "cohere2_moe_softmax": "cohere2_moe",
    "deepseek_v2_lite": "deepseek_v2",
    "deepseek_v4_hash": "deepseek_v4",
    "kimi_k2": "deepseek_v3",
    "kimi_k25": "deepseek_v3",
    "laguna_softcap": "laguna",
}
"""The model type that owns the router, where the preset is not named after it."""

DEFAULTS_DIFFER = {
    *("afmoe", "aria_text", "axk2", "cohere2_moe", "dbrx", "deepseek_ocr2_text", "deepseek_v2"),
    *("deepseek_v2_lite", "diffusion_gemma_text", "dots1", "exaone_moe", "gemma4_text"),
    *("glm4_moe", "granitemoe", "granitemoe_swa", "granitemoehybrid", "hunyuan_v1_moe"),
    *("kimi_k2", "kimi_k25", "minimax", "nemotron_h", "qwen3_moe", "qwen3_omni_moe_talker_text"),
    *("qwen3_vl_moe_text", "qwen4_exp_text"),
}
"""Where the configuration class defaults to sizes or flags that the checkpoint has not."""

SCALES_OUTPUT = {"beam", "minimax_m3_vl_text"}
"""Whose factor the block applies to its output, so that the router has none."""

ROUTERS = {
    "deepseek_v4": "deepseek_v4.DeepseekV4TopKRouter",
    "deepseek_v4_hash": "deepseek_v4.DeepseekV4HashRouter",
    "dots3_note_text": "dots3_note.Dots3NoteTextTopkRouter",
    "dots3_note_vision_encoder": "dots3_note.Dots3NoteVisionTopKRouter",
    "qwen3_omni_moe_talker_text": "qwen3_omni_moe.Qwen3OmniMoeTalkerTextTopKRouter",
    "qwen3_omni_moe_text": "qwen3_omni_moe.Qwen3OmniMoeThinkerTextTopKRouter",
    "step3p5": "step3p7.Step3p7TopKRouter",
}
"""Router classes that are not the only one of the module named after the model type."""

ARRAYS = {
    "bias": "gate_bias",
    "e_score_correction_bias": "selection_bias",
    "per_expert_scale": "per_expert_scale",
    "scale": "hidden_scale",
    "tid2eid": "expert_table",
}
"""The array that each parameter or buffer of a router holds; the others are the gate."""

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k")
TOP_K += ("top_k_experts",)
SCALE = ("routed_scaling_factor", "route_scale", "router_scaling_factor")
NORM = ("norm_topk_prob", "moe_renormalize")
COUNT, KEPT = ("n_group", "num_expert_group"), ("topk_group",)

EVERY = pytest.mark.parametrize("name", sorted(PRESETS))
SHIPPED = pytest.mark.parametrize("name", sorted(set(PRESETS) - {"dbrx", "jetmoe", "llama4_text"}))
"""Those whose router returns logits, weights and ids; the three others return other things."""


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
    assert {"H", "E", "K"} <= set(said), f"the configuration states only {sorted(said)}"
    differing = {key: pair for key, pair in said.items() if pair[0] != pair[1]}
    assert bool(differing) == (name in DEFAULTS_DIFFER), f"(preset, default) are {differing}"


@SHIPPED
def test_preset_agrees_with_the_shipped_router(name: str) -> None:
    chosen = preset(name)
    inputs = draw(chosen, bias=0.0 if name == "axk2" else -1.0)  # below its fill, all would tie
    expected = route(chosen.config, inputs)
    _, weights, ids = call(shipped_router(name), chosen, inputs)
    experts = chosen.config.num_experts
    np.testing.assert_allclose(
        dense(weights.double().numpy(), ids.numpy(), experts),
        dense(expected.weights, expected.expert_ids, experts),
        rtol=1e-5,
        atol=1e-6,
        err_msg="[T, E]: the weight of every expert, 0 where it is not selected",
    )


def test_excluded_groups_win_where_the_fill_beats_every_kept_score() -> None:
    chosen = preset("axk2")
    inputs = draw(chosen, bias=-2.0)
    _, _, ids = call(shipped_router("axk2"), chosen, inputs)
    competing = np.take_along_axis(stages(chosen.config, inputs).competing, ids.numpy(), axis=1)
    assert (competing == 0.0).all(), f"selected the competing scores {np.unique(competing)}"


@SHIPPED
def test_preset_names_the_precision_of_the_shipped_router(name: str) -> None:
    chosen = preset(name)
    logits, weights, _ = call(shipped_router(name), chosen, draw(chosen, "bfloat16"))
    narrow = str(weights.dtype) == "torch.bfloat16"
    assert narrow == (chosen.config.weights_dtype == "input"), f"weights are {weights.dtype}"
    if not chosen.config.input_norm and chosen.config.logit_softcap is None:
        rounded = FORMATS["bfloat16"].represents(logits.float().numpy()).all()
        assert rounded == (chosen.config.logits_dtype == "input"), f"logits rounded: {rounded}"


def test_unknown_preset_suggests_a_near_name() -> None:
    with pytest.raises(ValueError, match=r"'deepseek_v33': did you mean .*deepseek_v3"):
        preset("deepseek_v33")


def draw(chosen: Preset, dtype: str = "float32", bias: float = 0.0) -> RouterInputs:
    """Draw random normals for every array that ``chosen`` has, at its E and K but a small H."""
    rng, experts = np.random.default_rng(20), chosen.config.num_experts

    def normal(*shape: int, scale: float = 1.0, mean: float = 0.0) -> Any:
        return FORMATS[dtype].round(rng.normal(mean, scale, shape)).astype(np.float32)

    arrays: dict[str, Any] = {"hidden": normal(T, H), "gate_weight": normal(experts, H, scale=0.3)}
    if chosen.selection_bias:
        arrays["selection_bias"] = normal(experts, scale=0.1, mean=bias)
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
    return RouterInputs(dtype=dtype, **arrays)


def dense(weights: Any, ids: Any, experts: int) -> Any:
    """Return ``[T, E]``: the weights at their experts, duplicates added up, 0 elsewhere."""
    spread = np.zeros((T, experts))
    np.add.at(spread, (np.arange(T)[:, None], ids), weights)
    return spread


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


def shipped_router(name: str) -> Any:
    """Return the router class of the transformers package."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    stem = MODEL_TYPES.get(name, name).removesuffix("_text")
    stem, _, known = ROUTERS.get(name, f"{stem}.").partition(".")
    module = importlib.import_module(f"transformers.models.{stem}.modeling_{stem}")
    own = [
        c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__
    ]
    (found,) = [c for c in own if re.fullmatch(known or r".*(Router|MoEV1Gate)", c.__name__)]
    return found


def call(router_class: Any, chosen: Preset, inputs: RouterInputs) -> tuple[Any, Any, Any]:
    """Build the router, fill in ``inputs``, and return its logits, weights and ids."""
    torch = pytest.importorskip("torch")
    native = getattr(torch, inputs.dtype)
    router = router_class(settings(chosen))
    if router_class.__name__ not in ("HunYuanMoEV1Gate", "Inkling2TopKRouter"):  # kept in float32
        router = router.to(native)
    arrays = {key: torch.tensor(value) for key, value in inputs.arrays().items()}
    for key, tensor in [*router.named_parameters(), *router.named_buffers()]:
        value = arrays[ARRAYS.get(key.split(".")[-1], "gate_weight")].reshape(tensor.shape)
        keeps_dtype = "correction_bias" in key or "tid2eid" in key
        tensor.data = value if keeps_dtype else value.to(tensor.dtype)
    hidden = arrays["hidden"].to(native)
    others = [arrays["selection_bias"]] if chosen.selection_bias == "block" else []
    others += [arrays["token_ids"]] if chosen.expert_table else []
    with torch.no_grad():
        return router(hidden[None] if "Afmoe" in router_class.__name__ else hidden, *others)[:3]


def settings(chosen: Preset) -> SimpleNamespace:
    """Return what any router reads from its configuration, under every name in use."""
    config, groups, norm = chosen.config, chosen.config.groups, chosen.config.renormalize
    values = {
        EXPERTS: config.num_experts,
        TOP_K: config.top_k,
        SCALE: config.scale,
        NORM: norm is not None,
        COUNT: groups and groups.count,
        KEPT: groups and groups.kept,
        ("topk_method",): "group_limited_greedy" if groups else "greedy",
        ("expert_selection_fn",): config.weights_from.removesuffix("_of_selected"),
        ("scoring_func",): config.score,
        ("output_multiplier",): config.logit_multiplier,
        ("moe_router_logit_softcapping",): config.logit_softcap or 0.0,
        ("moe_norm_min",): norm and norm.floor,
        ("rms_norm_eps",): config.input_norm and config.input_norm.eps,
        ("use_expert_bias",): True,
        ("zero_expert_num",): 0,
        ("hidden_size",): H,
        ("vocab_size",): V,
    }
    return SimpleNamespace(**{name: value for names, value in values.items() for name in names})

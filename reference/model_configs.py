"""Presets of models by their own ``config.json``, as transformers writes it."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_routing.reference.checks import shown
from moe_routing.reference.config import SCORES, Groups, Renormalize, RmsNorm, RouterConfig
from moe_routing.reference.presets import PRESETS, Preset, preset

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_TOP_K: tuple[str, ...] = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token")
_TOP_K += ("moe_topk", "moe_k", "moe_top_k", "top_k_experts")
_HIDDEN = ("hidden_size", "d_model")
_SCALE = ("routed_scaling_factor", "route_scale", "router_scaling_factor")
_NORM = ("norm_topk_prob", "moe_renormalize")
_COUNT, _KEPT = ("n_group", "num_expert_group"), ("topk_group",)

_NOT_NAMED_AFTER: tuple[str, ...] = (
    "axk2_light",
    "cohere2_moe_softmax",
    "deepseek_v2_lite",
    "deepseek_v4_hash",
)
_NOT_NAMED_AFTER += ("kimi_k25", "kimi_k3", "laguna_softcap")

MODEL_TYPES: tuple[str, ...] = tuple(name for name in PRESETS if name not in _NOT_NAMED_AFTER)
"""The presets that are named after the ``model_type`` of a ``config.json``."""

_PLAIN = Renormalize()
_NORMS = {"deepseek_v2": Renormalize(eps=1e-20)}
"""How a model type normalises whose preset does not; the others by the plain sum."""

_SCALES_OUTPUT = ("beam", "minimax_m3_vl_text")
"""Whose block applies the factor to its output, so that the router has none."""

_LEFT_OUT: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"norm_topk_prob": False},
    "qwen3_omni_moe_talker_text": {"norm_topk_prob": False},
    "glm4_moe": {"routed_scaling_factor": 1.0},
    "nemotron_h": {"routed_scaling_factor": 1.0},
    "afmoe": {"route_scale": 1.0},
    "axk2": {"n_group": None},
    "cohere2_moe": {"expert_selection_fn": "softmax"},
    "deepseek_v2": {"topk_method": "greedy", "routed_scaling_factor": 1.0},
    "dots1": {"norm_topk_prob": False, "routed_scaling_factor": 1.0},
    "gemma4_text": {"enable_moe_block": False},
    "kimi_k2": {"n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5},
    "switch_transformers": {"num_experts_per_tok": 1, "router_bias": False},
}
"""What a setting is that a ``config.json`` leaves out, where the preset has another."""


def preset_of_config(config: str | os.PathLike[str] | Mapping[str, Any]) -> Preset:
    """Return the preset of a model by its ``config.json``: a path, its folder, or its content.

    ``model_type`` says which router it is, the settings its sizes and options; of a model of
    several parts, the first that has experts counts. Errors: ``OSError``; ``ValueError``, in one
    line, for what is no such configuration or a model type that no preset serves.
    """
    content, where = _read(config)
    model_type, values = _routed_part(content, where)
    try:
        return _made(model_type, values, where)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def nearest_preset(config: str | os.PathLike[str] | Mapping[str, Any]) -> str:
    """Return the name of the preset that has the stages of a ``config.json``, if not its sizes.

    Errors: those of ``preset_of_config``.
    """
    return _base(*_routed_part(*_read(config)))


def _read(config: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return the content of a configuration, and its name in messages."""
    if isinstance(config, Mapping):
        return config, "the configuration"
    if not isinstance(config, (str, os.PathLike)):
        raise ValueError(f"Expected config to be a path or a dict but got {shown(config)}")
    path = Path(config)
    path = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON, or of UTF-8
        raise ValueError(f"Cannot read {path} as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected {path} to hold a JSON object but got {shown(content)}")
    return content, str(path)


def _routed_part(content: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Return the model type and the settings of the first part that has experts."""
    known = [each for each in _parts(content) if each["model_type"] in MODEL_TYPES]
    if not known:
        raise ValueError(_unknown(content, where))
    for each in known:
        values = _settings(each)
        if _number(values, _EXPERTS):
            return each["model_type"], values
    raise ValueError(
        f"{where} is of a model without experts: {known[0]['model_type']} states none of "
        f"{', '.join(_EXPERTS)}"
    )


def _parts(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield every part of a configuration that has a model type, the whole first."""
    if isinstance(content.get("model_type"), str):
        yield content
    for value in content.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _settings(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a part, with those that it leaves out."""
    inner = part.get("ffn_config")
    whole = {**part, **(inner if isinstance(inner, Mapping) else {})}
    values = {**_LEFT_OUT.get(part["model_type"], {}), **whole}
    return {**values, "num_experts": None} if values.get("enable_moe_block") is False else values


def _made(model_type: str, values: Mapping[str, Any], where: str) -> Preset:
    """Make the preset of a model type with the settings of a configuration."""
    chosen = preset(_base(model_type, values))
    changed: dict[str, Any] = {"source": where}
    if "router_bias" in values:
        changed["gate_bias"] = bool(values["router_bias"])
    if values.get("use_expert_bias") is False:
        changed["selection_bias"] = None
    changed["hidden_size"] = _stated("hidden_size", values, _HIDDEN)
    return replace(chosen, config=_config(model_type, chosen, values), **changed)


def _base(model_type: str, values: Mapping[str, Any]) -> str:
    """Return the preset that has the stages of a configuration."""
    softmax = model_type == "cohere2_moe" and values["expert_selection_fn"] == "softmax"
    return "cohere2_moe_softmax" if softmax else model_type


def _config(model_type: str, chosen: Preset, values: Mapping[str, Any]) -> RouterConfig:
    own = chosen.config
    experts, identity = _stated("num_experts", values, _EXPERTS), values.get("zero_expert_num")
    parts: dict[str, Any] = {
        "num_experts": experts + identity if isinstance(identity, int) else experts,
        "top_k": _stated("top_k", values, _TOP_K),
        "groups": _groups(own, values),
        "renormalize": _renormalize(model_type, own, values),
    }
    if model_type not in _SCALES_OUTPUT:
        parts["scale"] = _first(values, _SCALE, own.scale)
    if own.score != "identity" and values.get("scoring_func") in SCORES:
        parts["score"] = values["scoring_func"]
    if own.input_norm is not None:
        parts["input_norm"] = RmsNorm(eps=values.get("rms_norm_eps", own.input_norm.eps))
    if model_type == "laguna":
        parts["logit_softcap"] = values.get("moe_router_logit_softcapping") or None
    if model_type == "muse_spark_text":
        parts["logit_multiplier"] = values.get("output_multiplier", own.logit_multiplier)
    return replace(own, **parts)


def _groups(own: RouterConfig, values: Mapping[str, Any]) -> Groups | None:
    """Return the groups that are stated, by the rule of the model type."""
    if own.groups is None or values.get("topk_method") == "greedy":
        return None
    count = _first(values, _COUNT, own.groups.count)
    kept = _first(values, _KEPT, own.groups.kept)
    return None if count is None else replace(own.groups, count=count, kept=kept)


def _renormalize(
    model_type: str, own: RouterConfig, values: Mapping[str, Any]
) -> Renormalize | None:
    """Return how the selected weights are normalised: by a flag, an order, a floor, or as ever."""
    if "moe_normalize_expert_weights" in values:
        order = values["moe_normalize_expert_weights"]
        return None if order is None else Renormalize(order=order)
    if "moe_norm_min" in values:
        return Renormalize(floor=values["moe_norm_min"])
    norm = own.renormalize
    if own.weights_from == "softmax_of_selected" or not any(name in values for name in _NORM):
        return norm
    return (norm or _NORMS.get(model_type, _PLAIN)) if _first(values, _NORM, False) else None


def _stated(what: str, values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    found = _number(values, names)
    if found is None:
        raise ValueError(f"no {what} is stated: none of {', '.join(names)} is there")
    return found


def _number(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Return the first of ``names`` that is stated and not null, or None."""
    return next((values[name] for name in names if values.get(name) is not None), None)


def _first(values: Mapping[str, Any], names: tuple[str, ...], default: Any) -> Any:
    return next((values[name] for name in names if name in values), default)


def _unknown(content: Mapping[str, Any], where: str) -> str:
    """Say which model types there are in a configuration, and which are known."""
    named = [str(each["model_type"]) for each in _parts(content)]
    if not named:
        return f"Cannot find a model_type in {where}: it is no configuration of transformers"
    near = difflib.get_close_matches(named[0], MODEL_TYPES, n=3) or sorted(MODEL_TYPES)[:3]
    what = " or ".join(map(shown, dict.fromkeys(named)))
    return (
        f"Unknown model_type {what} in {where}: known are {', '.join(near)} and "
        f"{len(MODEL_TYPES) - len(near)} more, which `moe-routing presets` lists"
    )

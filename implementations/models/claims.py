"""What a router of a model is, by its configuration: the claim that its answers are held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moe_routing.implementations.transformers.rows import Row
from moe_routing.implementations.transformers.settings import HIDDEN_NORM, NORM, SCALE, TOP_K
from moe_routing.reference import Groups, Preset, Renormalize, RmsNorm, RouterConfig, preset

_GROUPS = ("n_group", "num_expert_group")
_ORDER = "moe_normalize_expert_weights"
_FLOOR = "moe_norm_min"
_SOFTCAP = "moe_router_logit_softcapping"

_READ_NORM = ("cohere2_moe",)
"""The rows of one preset whose class reads whether to renormalise."""

FACTORS = {
    "laguna": "moe_routed_scaling_factor",
    "minimax_m3_vl_text": "routed_scaling_factor",
    "step3p5": "moe_router_scaling_factor",
    "beam": "routed_scaling_factor",
}
"""The setting that a block multiplies the sum of its experts by, by row."""


def router_config(row: Row, settings: Any, num_experts: int) -> RouterConfig:
    """Return the router that ``settings``, a model's configuration, say a block of ``row`` is.

    Errors: ``ValueError`` where they lack something, or contradict one another.
    """
    base = _base(row, settings).config
    changes: dict[str, Any] = {
        "num_experts": num_experts,
        "top_k": _top_k(row, settings),
        "groups": _groups(base, settings),
        "renormalize": _renormalize(row, base, settings),
        "logit_softcap": _softcap(base, settings),
    }
    if "scale" in row.varies:
        changes["scale"] = float(setting(settings, SCALE, 1.0))
    if base.weights_from == "masked_scores" and changes["groups"] is None:
        changes["weights_from"] = "scores"
    if "score" in row.varies:
        changes["score"] = setting(settings, ("scoring_func",), base.score)
    if base.logit_multiplier != 1.0:
        changes["logit_multiplier"] = float(setting(settings, ("output_multiplier",), 1.0))
    if base.input_norm is not None:
        changes["input_norm"] = RmsNorm(eps=float(setting(settings, HIDDEN_NORM, 1e-6)))
    return replace(base, **changes)


def setting(settings: Any, names: Sequence[str], default: Any) -> Any:
    """Return the first of the settings that there is and that is not None, or the default."""
    for name in names:
        if (value := _read(settings, name)) is not None:
            return value
    return default


def _read(settings: Any, name: str) -> Any:
    """Return a setting, or None where there is none, or one for each layer."""
    try:
        return getattr(settings, name, None)
    except RuntimeError:  # how a configuration of unlike layers refuses
        return None


def _base(row: Row, settings: Any) -> Preset:
    """Return the preset whose form the settings choose."""
    found = [preset(name) for name in row.served]
    function = getattr(settings, "expert_selection_fn", None)
    if function is not None and len(found) > 1:
        found = [each for each in found if each.config.weights_from == f"{function}_of_selected"]
    if "topk_method" in vars(settings) and len(found) > 1:
        grouped = settings.topk_method == "group_limited_greedy"
        found = [each for each in found if (each.config.groups is not None) == grouped]
    if len(found) > 1 and setting(settings, _GROUPS, None) is not None:
        found = [each for each in found if each.config.groups is not None] or found
    elif len(found) > 1 and any(each.config.groups is None for each in found):
        found = [each for each in found if each.config.groups is None]
    if not found:
        raise ValueError(
            f"none of {', '.join(row.served)} routes as expert_selection_fn={function!r}"
        )
    return found[0]


def _top_k(row: Row, settings: Any) -> int:
    if row.limits.max_top_k == 1:
        return 1
    found = setting(settings, (*TOP_K, "top_k_experts"), None)
    if not isinstance(found, int):
        raise ValueError(f"the configuration has no integer among {', '.join(TOP_K)}: {found!r}")
    return found


def _groups(base: RouterConfig, settings: Any) -> Groups | None:
    count = setting(settings, _GROUPS, None)
    rule = base.groups
    if rule is None and getattr(settings, "topk_method", "") == "group_limited_greedy":
        rule = preset("deepseek_v2").config.groups
    if rule is None or count is None:
        return None
    return replace(rule, count=int(count), kept=int(setting(settings, ("topk_group",), 1)))


def _renormalize(row: Row, base: RouterConfig, settings: Any) -> Renormalize | None:
    own = base.renormalize
    if row.nested and hasattr(settings, _ORDER):
        order = getattr(settings, _ORDER)
        return None if order is None else Renormalize(order=float(order))
    if "renormalize" in row.varies or row.name in _READ_NORM:
        offered = [own, *row.varies.get("renormalize", ())]
        flag = setting(settings, NORM, own is not None)
        return next((each for each in offered if each is not None), None) if flag else None
    if own is not None and own.floor:
        return replace(own, floor=float(setting(settings, (_FLOOR,), own.floor)))
    return own


def _softcap(base: RouterConfig, settings: Any) -> float | None:
    if not hasattr(settings, _SOFTCAP):
        return base.logit_softcap
    return float(getattr(settings, _SOFTCAP) or 0.0) or None

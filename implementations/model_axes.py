"""The axes of a claim that a shipped model needs: what its router has, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from moe_routing.reference import Preset, preset, preset_of_config

ModelConfig: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""A model's ``config.json``: its path, its folder, or its content."""

_SAME: tuple[str, ...] = ("score", "weights_from", "renormalize", "scale")
_SAME += ("logits_dtype", "scores_dtype", "weights_dtype")
_OPTIONAL = ("gate_bias", "per_expert_scale")


def preset_axes(name: str, rule: Callable[..., Any]) -> dict[str, Any]:
    """Return the axes of a preset. Errors: ``ValueError`` for an unknown one."""
    return _axes(preset(name), rule)


def config_axes(config: ModelConfig, rule: Callable[..., Any]) -> dict[str, Any]:
    """Return the axes of a ``config.json``. Errors: those of ``preset_of_config``."""
    return _axes(preset_of_config(config), rule)


def _axes(model: Preset, rule: Callable[..., Any]) -> dict[str, Any]:
    """Return the axes of the claim of what ``model`` has, groups in any number by its ``rule``.

    An array that the model has may also be absent: such a checkpoint holds zeros (ones, for
    scales).
    """
    config, bias = model.config, model.selection_bias
    groups = config.groups and rule(
        top=(config.groups.top,), fill=(config.groups.fill,), from_each=(config.groups.from_each,)
    )
    axes: dict[str, Any] = {name: (getattr(config, name),) for name in _SAME}
    axes |= {name: (False, True) if getattr(model, name) else (False,) for name in _OPTIONAL}
    return axes | {
        "groups": (groups,),
        "logit_softcap": (config.logit_softcap is not None,),
        "logit_multiplier": (config.logit_multiplier != 1.0,),
        "input_norm": (config.input_norm is not None,),
        "selection_bias": ("none",) if bias is None else ("none", bias),
        "expert_table": (model.expert_table,),
    }

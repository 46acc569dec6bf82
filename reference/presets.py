"""Presets: the routers of shipped models, with their published sizes."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from moe_routing.reference.config import Groups, Renormalize, RmsNorm, RouterConfig
from moe_routing.reference.inputs import BiasOn


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A shipped router: its configuration, and which optional inputs it has.

    ``hidden_size`` is H of the published checkpoint. ``selection_bias`` is where the
    model keeps it, or None; the other flags say which arrays of ``RouterInputs`` the
    model has. ``source`` names the checkpoint that the sizes come from.
    """

    config: RouterConfig
    hidden_size: int
    selection_bias: BiasOn | None = None
    gate_bias: bool = False
    per_expert_scale: bool = False
    expert_table: bool = False
    source: str


PRESETS: dict[str, Preset] = {}
"""Every preset by its model type."""


def preset(name: str) -> Preset:
    """Return the preset of a model type such as ``deepseek_v3``.

    Errors: ``ValueError`` with the nearest names where there is none.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3) or sorted(PRESETS)
        raise ValueError(f"Unknown preset {name!r}: did you mean {', '.join(near)}?")
    return PRESETS[name]

"""Presets: the routers of shipped models, with their published sizes (presets.toml)."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
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


_OF_PRESET = {field.name for field in fields(Preset)} - {"config"}
_PARTS = {"groups": Groups, "renormalize": Renormalize, "input_norm": RmsNorm}


def _read() -> dict[str, Preset]:
    data = tomllib.loads((Path(__file__).parent / "presets.toml").read_text(encoding="utf-8"))
    found: dict[str, Preset] = {}
    for family in data["family"]:
        models = family.pop("models")
        found |= {name: _preset(family | own) for name, own in models.items()}
    return found


def _preset(values: dict[str, Any]) -> Preset:
    """Make a preset of the fields of RouterConfig and of Preset, parts given as tables."""
    made = {key: _PARTS[key](**v) if key in _PARTS else v for key, v in values.items()}
    own = {key: made.pop(key) for key in _OF_PRESET if key in made}
    return Preset(config=RouterConfig(**made), **own)


PRESETS: dict[str, Preset] = _read()
"""Every preset by its model type."""


def preset(name: str) -> Preset:
    """Return the preset of a model type such as ``deepseek_v3``.

    Errors: ``ValueError``, with the nearest names where ``name`` is unknown.
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

"""The JSON form of configurations and of numbers: what case files and the line protocol write.

A float is the shortest decimal that reads back as the same double; every float32 is one, so
that nothing is rounded. JSON has no literals for NaN and the infinities: those are strings.
"""

from __future__ import annotations

import math
from typing import Any

from moe_routing.reference.config import (
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    SharedSlots,
)
from moe_routing.reference.experts import ExpertsConfig
from moe_routing.reference.layer import LayerConfig
from moe_routing.reference.shared_experts import SharedExpertConfig

PARTS: dict[str, type] = {
    "groups": Groups,
    "renormalize": Renormalize,
    "input_norm": RmsNorm,
    "shared_slots": SharedSlots,
    "router": RouterConfig,
    "experts": ExpertsConfig,
    "shared": SharedExpertConfig,
}
"""The fields of a configuration that are objects of their own, with their types."""

LATER: dict[str, Any] = {"from_each": False, "shared_slots": None}
"""Fields that came later, with the value that stands for each where it is left out."""

_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


Config = (
    RouterConfig
    | SharedExpertConfig
    | ExpertsConfig
    | LayerConfig
    | Groups
    | Renormalize
    | RmsNorm
    | SharedSlots
)


def config_to_json(config: Config) -> dict[str, Any]:
    """Return the JSON form of a configuration, unchecked ones too: its fields, by name."""
    return {
        name: config_to_json(value) if name in PARTS and value is not None else to_json(value)
        for name, value in vars(config).items()
        if name not in LATER or value != LATER[name]
    }


def to_json(value: Any) -> Any:
    """Return numbers, or a list of them, with ``nan``, ``inf`` and ``-inf`` as strings."""
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def from_json(value: Any) -> Any:
    """Return the number that a string stands for, and anything else as it is."""
    return _SPECIAL.get(value, value) if isinstance(value, str) else value

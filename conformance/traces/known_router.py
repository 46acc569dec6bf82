"""The router that a trace is judged by: of a preset, a claim's JSON, or a model's config.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from moe_routing.conformance.traces.errors import TraceError
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, preset_of_config
from moe_routing.reference.checks import shown
from moe_routing.reference.jsonform import PARTS, from_json
from moe_routing.reference.presets import Preset, preset

MANY = 2**31
"""Stands for E where nobody says it: more than any router has."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a router: its configuration, and which arrays it has besides its gate.

    ``name`` is for messages; ``config`` is None where no router was named, and then only ids are
    judged. ``open_sizes`` are those of E and K that the trace decides, ``numerics`` is declared.
    """

    name: str
    config: RouterConfig | None = None
    selection_bias: bool = False
    gate_bias: bool = False
    per_expert_scale: bool = False
    expert_table: bool = False
    open_sizes: tuple[str, ...] = ()
    numerics: Numerics = field(default_factory=Numerics)

    @property
    def top_k(self) -> int:
        """K. Errors: ``TraceError`` where no router was named."""
        if self.config is None:
            raise TraceError(
                "Responses of sglang do not say how many experts a token has: name the router, "
                "with --preset or --config"
            )
        return self.config.top_k

    def sized(self, experts: int | None, top_k: int | None) -> RouterConfig:
        """Return the configuration for a trace of E experts and K slots, None where unknown.

        Errors: ``TraceError`` where they are not the router's.
        """
        if self.config is None:
            return RouterConfig(num_experts=experts or MANY, top_k=top_k or 1)
        found = {"num_experts": experts, "top_k": top_k}
        sizes = {name: found[name] for name in self.open_sizes if found[name]}
        try:
            return replace(self.config, **sizes)  # type: ignore[arg-type]
        except ValueError as error:
            raise TraceError(f"{self.name} does not fit the trace: {error}") from error


NOBODY = Known(name="no router")
"""What is known where no router was named."""


def of_preset(name: str) -> Known:
    """Return the router of a preset. Errors: ``TraceError``."""
    try:
        found = preset(name)
    except ValueError as error:
        raise TraceError(str(error)) from error
    return _of(found, f"preset {name}")


def _of(found: Preset, name: str) -> Known:
    return Known(
        name=name,
        config=found.config,
        selection_bias=found.selection_bias is not None,
        gate_bias=found.gate_bias,
        per_expert_scale=found.per_expert_scale,
        expert_table=found.expert_table,
    )


def of_file(path: Path) -> Known:
    """Return the router of a JSON file, or of a model's folder. Errors: ``TraceError``."""
    file = path / "config.json" if path.is_dir() else path
    try:
        data = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise TraceError(f"Cannot read --config {file}: {error.strerror}") from error
    except ValueError as error:
        raise TraceError(f"--config {file} is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise TraceError(f"--config {file} is {shown(data)}, but should be a JSON object")
    if any(key in data for key in ("model_type", "architectures")):
        try:
            return _of(preset_of_config(file), f"{file}")
        except ValueError as error:
            raise TraceError(f"{error}") from error
    try:
        return _of_claim(data, f"{file}")
    except (TypeError, ValueError) as error:
        raise TraceError(f"--config {file}: {error}") from error


_FLAGS = ("selection_bias", "gate_bias", "per_expert_scale", "expert_table")
_IGNORED = ("name", "gate_delta")


def _of_claim(data: dict[str, Any], name: str) -> Known:
    """Read a configuration, or a claim whose axes hold one value each."""
    single = {key: _single(key, value) for key, value in data.items() if key not in _IGNORED}
    flags: dict[str, Any] = {
        key: single.pop(key) not in (False, None, "none") for key in _FLAGS if key in single
    }
    names = [each.name for each in fields(RouterConfig)]
    for key in single:
        if key not in names:
            raise ValueError(f"unknown key {shown(key)}: expected some of {', '.join(names)}")
    made = {key: _part(key, value) for key, value in single.items()}
    groups = made.get("groups")
    most = MANY if groups is None else groups.count * 2**20
    sizes: dict[str, Any] = {
        key: size for key, size in (("num_experts", most), ("top_k", 1)) if key not in made
    }
    return Known(name=name, config=RouterConfig(**made, **sizes), open_sizes=(*sizes,), **flags)


def _single(key: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise ValueError(
            f"{key} has {len(value)} values, but a trace is of one router: leave one of them"
        )
    return value[0]


def _part(key: str, value: Any) -> Any:
    if key in PARTS and isinstance(value, dict):
        return PARTS[key](**{name: from_json(each) for name, each in value.items()})
    return from_json(value)


def declared(words: Sequence[str]) -> Numerics:
    """Return the numerics that words declare: ``sigmoid=absolute``. Errors: ``TraceError``."""
    names = [each.name for each in fields(Numerics)]
    given: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in names or not value:
            raise TraceError(f"--declare {word} is none of {', '.join(f'{x}=...' for x in names)}")
        plain = {"true": True, "false": False}.get(value, value)
        given[name] = int(value) if value.isdigit() else plain
    try:
        return Numerics(**given)
    except ValueError as error:
        raise TraceError(f"--declare {' '.join(words)}: {error}") from error

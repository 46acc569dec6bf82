"""What a new adapter is like: the claim of a preset or of a ``config.json``, as source text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moe_routing.implementations import Claim
from moe_routing.reference import Preset, nearest_preset, preset, preset_of_config
from moe_routing.reference.checks import shown


@dataclass(frozen=True, kw_only=True)
class Like:
    """A model whose router is to be written: its name, its preset, and its claim as source."""

    name: str
    model: Preset
    claim: str

    def written(self, template: str) -> str:
        """Return a template with this model in it."""
        norm = "Renormalize, " * ("Renormalize(" in self.claim)
        for theirs, ours in (
            ('Claim.of_preset("PRESET")', self.claim),
            ("PRESET", self.name),
            ("# CALL", _lines(_call(self.model))),
            ("import RouterConfig", f"import {norm}RouterConfig"),
        ):
            template = template.replace(theirs, ours)
        return template


def like_preset(name: str) -> Like:
    """Return what is like a preset. Errors: ``ValueError``."""
    return Like(name=name, model=preset(name), claim=f'Claim.of_preset("{name}")')


def like_config(config: str) -> Like:
    """Return what is like a ``config.json``: its preset, but for the axes in which it differs.

    Errors: ``ValueError``, ``OSError``.
    """
    name = nearest_preset(config)
    theirs, own = vars(Claim.of_preset(name)), vars(Claim.of_config(config))
    changed = [f"    {axis}={own[axis]!r},\n" for axis in own if own[axis] != theirs[axis]]
    arguments = "".join(['\n    "', name, '",\n', *changed]) if changed else f'"{name}"'
    claim = f"Claim.of_preset({arguments})"
    return Like(name=name, model=preset_of_config(config), claim=claim)


def _call(model: Preset) -> list[str]:
    """Return the tensors and the settings of a call that a router of this model reads."""
    config = model.config
    norm = config.renormalize
    tensors = [("hidden", "[T, H]"), ("gate_weight", "[E, H]")]
    tensors += [("gate_bias", "[E] or None")] * model.gate_bias
    tensors += [("selection_bias", "[E], float32, or None")] * bool(model.selection_bias)
    tensors += [("per_expert_scale", "[E] or None")] * model.per_expert_scale
    tensors += [("hidden_scale", "[H]")] * bool(config.input_norm)
    tensors += [("expert_table", "[V, K]"), ("token_ids", "[T]")] * model.expert_table
    settings: list[tuple[str, Any]] = [("num_experts", config.num_experts)]
    settings += [("top_k", config.top_k), ("score", config.score)]
    settings += [("weights_from", config.weights_from)] * (config.weights_from != "scores")
    settings += [("groups.count", config.groups.count)] if config.groups else []
    settings += [("groups.kept", config.groups.kept)] if config.groups else []
    settings += [("renormalize.eps", norm.eps)] if norm else []
    settings += [("scale", config.scale)] * (config.scale != 1.0)
    return [f"    given.{name:<18} {shape}" for name, shape in tensors] + [
        f"    config.{name:<17} {shown(value)} in {model.source}" for name, value in settings
    ]


def _lines(call: list[str]) -> str:
    return "\n        ".join(f"# {line}" for line in call)

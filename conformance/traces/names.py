"""What the keys of a trace mean: the layer and the part that each names."""

from __future__ import annotations

import re
from dataclasses import dataclass

PARTS = {
    "logits": ("router_logits", "logits", "gate_logits"),
    "expert_ids": (
        "expert_ids",
        "topk_ids",
        "topk_indices",
        "router_indices",
        "selected_experts",
        "routed_experts",
        "indices",
        "ids",
    ),
    "weights": (
        "weights",
        "topk_weights",
        "routing_weights",
        "router_scores",
        "expert_weights",
    ),
    "hidden": ("hidden", "hidden_states"),
    "gate_weight": ("gate_weight", "gate.weight", "router.weight"),
    "gate_bias": ("gate_bias", "gate.bias", "router.bias"),
    "selection_bias": (
        "selection_bias",
        "e_score_correction_bias",
        "correction_bias",
        "expert_bias",
    ),
    "per_expert_scale": ("per_expert_scale",),
    "hidden_scale": ("hidden_scale",),
}
"""The names that each part of a trace may have."""

OF_TOKENS = ("logits", "expert_ids", "weights", "hidden")
"""The parts that have a row a token; the others are a router's own, one a layer."""

TOKENS_FIRST = ("routed_experts",)
"""Names of engines, whose arrays for all layers are ``[tokens, layers, K]``."""

_PART_OF = {name: part for part, names in PARTS.items() for name in names}
_SPLIT = re.compile(r"[./\[\]:]+")
_NUMBERED = re.compile(r"(.*?)_?(\d+)")
_LAYERS = ("layers", "layer", "blocks", "block", "h")


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a key names: a ``part``, of one ``layer`` or of all where it is None."""

    part: str
    name: str
    layer: int | None


def meaning(key: str) -> Meaning | None:
    """Return what a key means, None where it is none of a trace.

    The layer is a number in the key: ``router_logits.3``, ``layers.3.mlp.gate.weight``,
    ``expert_ids_3``.
    """
    words = _SPLIT.split(key.partition(" of response ")[0].partition(" at byte ")[0])
    numbers: list[tuple[bool, int]] = []
    rest: list[str] = []
    for word in (each for each in words if each):
        found = _NUMBERED.fullmatch(word)
        if found and (not found[1] or found[1] in _PART_OF or found[1] in _LAYERS):
            marked = bool(rest and rest[-1] in _LAYERS) or found[1] in _LAYERS
            numbers.append((marked, int(found[2])))
            word = found[1]
        if word:
            rest.append(word)
    name = next((n for n in (".".join(rest[-2:]), *rest[-1:]) if n in _PART_OF), None)
    if name is None or "experts" in rest[:-1]:
        return None
    layer = next((n for marked, n in numbers if marked), numbers[0][1] if numbers else None)
    return Meaning(part=_PART_OF[name], name=name, layer=layer)

"""Events of shipped models: the whole router of each, as it was published."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.events.sizes import favouring_last
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference import PRESETS, Preset, RouterInputs
from moe_routing.reference.config import LEAST_PRECISE

FAMILIES["preset"] = "the router of a shipped model with every setting as published"


def _whole(name: str, preset: Preset) -> None:
    """Register the router of one model: its configuration, and where its bias is."""
    place = preset.selection_bias or "gate"

    def occurs(bounds: Bounds) -> bool:
        inputs = bounds.inputs
        biased = inputs.selection_bias is not None
        at_home = biased == (preset.selection_bias is not None) and (
            not biased or inputs.selection_bias_on == place
        )
        return inputs.num_tokens > 0 and bounds.config == preset.config and at_home

    @event(f"preset:{name}", f"the router of {preset.source}", occurs)
    def _(capabilities: Capabilities) -> Iterator[Case]:
        as_logits = capabilities.takes == "logits"
        for dtype, gate_dtype in product(capabilities.dtypes, LEAST_PRECISE):
            inputs = _inputs(preset, dtype, gate_dtype, as_logits=as_logits)
            if inputs is not None and capabilities.admits(preset.config, inputs):
                yield Case(config=preset.config, inputs=inputs, recipe="constructed")


def _inputs(preset: Preset, dtype: str, gate_dtype: str, *, as_logits: bool) -> RouterInputs | None:
    """Return two tokens for the last and the first experts; None where logits cannot be input."""
    config, experts = preset.config, np.arange(preset.config.num_experts)
    arrays: dict[str, Any] = {"dtype": dtype, "gate_dtype": gate_dtype}
    if preset.selection_bias is not None:
        arrays["selection_bias"] = np.float32(experts % 4 / 4.0)
        arrays["selection_bias_on"] = preset.selection_bias
    if preset.per_expert_scale:
        arrays["per_expert_scale"] = np.float32(1.0 + experts % 3 / 4.0)
    if preset.expert_table:
        arrays["expert_table"] = (experts[:2, None] + np.arange(config.top_k)) % len(experts)
        arrays["token_ids"] = np.array([1, 0])
    rows = favouring_last(len(experts))
    if as_logits:
        logits_only = not preset.gate_bias and config.input_norm is None
        return RouterInputs.from_logits(rows, **arrays) if logits_only else None
    if preset.gate_bias:
        arrays["gate_bias"] = np.float32(experts % 5 / 8.0)
    if config.input_norm is not None:
        arrays["hidden_scale"] = np.ones(len(experts), np.float32)
    gate = np.eye(len(experts), dtype=np.float32)
    return RouterInputs(hidden=rows, gate_weight=gate, **arrays)


for _name, _preset in PRESETS.items():
    _whole(_name, _preset)

"""The event of a normalised input whose scale has to be applied once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge import Bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference.logits import normalize_input


def _scale_decides_once(bounds: Bounds) -> bool:
    """Return whether others win without the scale of the norm, and where the norm comes twice."""
    bounds = bounds.differing
    rule, inputs = bounds.config.input_norm, bounds.inputs
    if rule is None or inputs.hidden_scale is None or inputs.logits is not None:
        return False
    normed = normalize_input(rule, inputs).astype(np.float32)
    others = (
        Bounds(bounds.config, replace(inputs, **changes), bounds.numerics)
        for changes in ({"hidden_scale": None}, {"hidden": normed, "dtype": "float32"})
    )
    right, sure = np.sort(bounds.reference.expert_ids, axis=1), bounds.only_reference
    for other in others:
        differs = (np.sort(other.reference.expert_ids, axis=1) != right).any(axis=1)
        sure = sure & other.only_reference & differs
    return bool(sure.any())


@event(
    "norm-scale-decides",
    "a normed input with a scale: other experts win without it, and after a second norm",
    _scale_decides_once,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {"logit ops": lambda ops: "input_norm" in ops}
    hidden = [[8.0, 4.0, 2.0, 1.0]]
    for top_k, scale in ((2, [0.25, 0.25, 1.0, 1.0]), (1, [0.25, 1.0, 0.25, 3.0])):
        yield from table_cases(capabilities, hidden, top_k=top_k, wants=wants, hidden_scale=scale)

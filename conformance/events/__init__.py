"""Events: the conditions that a clause must have seen before its pass means anything.

Each event is a fact about a case, computed from the reference and its bounds, never from the
backend's answer. Each has a constructor: cases that show it, the plainest first, built
from a backend's claims. An event that no constructed case shows is unreachable under them.
"""

from moe_routing.conformance.events import (
    biases,
    calls,
    experts,
    experts_loads,
    experts_sizes,
    gradient_gates,
    gradients,
    group_sizes,
    groups,
    hashed,
    input_norm,
    logits,
    mixes,
    narrow_norms,
    nonfinite,
    permutation,
    presets,
    published,
    rounded_bias,
    scores,
    selection,
    series,
    shapes,
    shared_experts,
    sizes,
    weights,
)
from moe_routing.conformance.events.registry import EVENTS, FAMILIES, Event, members

__all__ = [
    "EVENTS",
    "FAMILIES",
    "Event",
    "biases",
    "calls",
    "experts",
    "experts_loads",
    "experts_sizes",
    "gradient_gates",
    "gradients",
    "group_sizes",
    "groups",
    "hashed",
    "input_norm",
    "logits",
    "members",
    "mixes",
    "narrow_norms",
    "nonfinite",
    "permutation",
    "presets",
    "published",
    "rounded_bias",
    "scores",
    "selection",
    "series",
    "shapes",
    "shared_experts",
    "sizes",
    "weights",
]

"""Mutants, one module per chapter; importing this package registers them all."""

from moe_routing.conformance.zoo.mutants import (  # noqa: I001  chapter order
    logits,
    scores,
    groups,
    selection_bias,
    selection,
    sizes,
    weights,
    layout,
    invariance,
    repetition,
    robustness,
    dispatch,
    shared_experts,
    permutation,
    conventions,
)

__all__ = [
    "conventions",
    "dispatch",
    "groups",
    "invariance",
    "layout",
    "logits",
    "permutation",
    "repetition",
    "robustness",
    "scores",
    "selection",
    "selection_bias",
    "shared_experts",
    "sizes",
    "weights",
]

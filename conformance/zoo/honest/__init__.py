"""Honest variants: routers that differ from the plain one only as the specification permits."""

from moe_routing.conformance.zoo.honest import (
    balance,
    capacity,
    choices,
    expert_gradients,
    experts,
    gradients,
    layer,
    padding,
    permutation,
    precision,
    repetition,
    replay,
    scores,
    shards,
    sixteen_bits,
    sums,
)

__all__ = [
    "balance",
    "capacity",
    "choices",
    "expert_gradients",
    "experts",
    "gradients",
    "layer",
    "padding",
    "permutation",
    "precision",
    "repetition",
    "replay",
    "scores",
    "shards",
    "sixteen_bits",
    "sums",
]

"""Mutants of shared experts that run as slots of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.zoo.residents import WHOLE, mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import fused_ids, fused_weights, norm
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import ANY, Claim
from moe_routing.reference import Routing

_SGLANG = "sgl-project/sglang 0.5.23, topk"
FUSED = replace(
    WHOLE, claims=(Claim(shared_slots=ANY, score=("softmax", "sigmoid"), expert_table=(False,)),)
)
"""What a router claims whose shared experts are slots."""


@mutant("shared-id-off-by-one", "M38", "fused_ids", real="sgl-project/sglang#22525", claims=FUSED)
def _(w: Work) -> Array:
    """Shared experts were counted from 1: the last one lay beyond the weights of the layer."""
    return fused_ids(w) + 1


@mutant("shared-id-of-the-first-expert", "M59", "fused_ids", real=_SGLANG, claims=FUSED)
def _(w: Work) -> Array:
    """Ids of shared experts were not moved behind the routed ones: expert 0 ran in their place."""
    return fused_ids(w) - w.config.num_experts


@mutant(
    "one-shared-expert-in-all-slots",
    "M59",
    "fused_ids",
    real="sgl-project/sglang#6736",
    claims=FUSED,
)
def _(w: Work) -> Array:
    """One slot was handled: with two shared experts the first was run twice, the second never."""
    return np.full_like(fused_ids(w), w.config.num_experts)


@mutant("shared-expert-by-lot", "M59", "fused_ids", real=_SGLANG, claims=FUSED)
def _(w: Work) -> Array:
    """Each token got one of the shared experts by chance: right where there is one alone."""
    chosen = np.random.default_rng(7).integers(w.fused.count, size=fused_ids(w).shape)
    return np.asarray(w.config.num_experts + chosen)


@mutant("shared-slots-in-front", "M52", "answer", real="vllm-project/vllm#51632", claims=FUSED)
def _(w: Work) -> Routing:
    """Shared slots came first, where what reads them takes the first K for the routed ones."""
    if w.config.shared_slots is None:
        return Routing(weights=w.weights, expert_ids=w.expert_ids)
    weights = np.concatenate([w.fused_weights, w.weights], axis=1)
    return Routing(weights=weights, expert_ids=np.concatenate([w.fused_ids, w.expert_ids], axis=1))


@mutant("shared-slots-for-softmax-alone", "M58", "answer", real="ROCm/ATOM#1076", claims=FUSED)
def _(w: Work) -> Routing:
    """The branch of another score function never added the shared slots."""
    if w.config.shared_slots is None or w.config.score != "softmax":
        return Routing(weights=w.weights, expert_ids=w.expert_ids)
    weights = np.concatenate([w.weights, w.fused_weights], axis=1)
    return Routing(weights=weights, expert_ids=np.concatenate([w.expert_ids, w.fused_ids], axis=1))


@mutant(
    "shared-weight-scaled", "M22", "fused_weights", real="sgl-project/sglang#35163", claims=FUSED
)
def _(w: Work) -> Array:
    """The scale was applied to every slot: the shared expert counted 2.5 times."""
    return fused_weights(w) * np.float32(w.config.scale)


@mutant(
    "shared-weight-over-a-scale-that-is-folded-in",
    "M59",
    "fused_weights",
    real="sgl-project/sglang#29059",
    claims=FUSED,
)
def _(w: Work) -> Array:
    """It was 1 / scale for a layer that multiplies afterwards, which this one no longer did."""
    return np.asarray(fused_weights(w) / np.float32(w.config.scale or 1.0))


@mutant(
    "shared-weight-always-one",
    "M21",
    "fused_weights",
    real="sgl-project/sglang#29059",
    claims=FUSED,
)
def _(w: Work) -> Array:
    """The layer multiplies afterwards, and 1 / scale was forgotten: it counted 2.5 times."""
    return np.ones_like(fused_weights(w))


@mutant(
    "shared-weight-for-each-of-several",
    "M59",
    "fused_weights",
    real="MooreThreads/torchada#84",
    claims=FUSED,
)
def _(w: Work) -> Array:
    """The weight of all shared experts together grew with their number."""
    return fused_weights(w) * np.float32(w.fused.count)


@mutant("shared-weight-over-the-norm", "M59", "fused_weights", real=_SGLANG, claims=FUSED)
def _(w: Work) -> Array:
    """It was written before the division by the norm, and was divided with the others."""
    if w.config.renormalize is None:
        return fused_weights(w)
    return np.asarray(fused_weights(w) / w.norm)


@mutant("shared-weight-in-the-norm", "M20", "norm", real=_SGLANG, claims=FUSED)
def _(w: Work) -> Array:
    """The sum went over all slots, the shared ones too: routed experts weighed half."""
    if w.config.shared_slots is None:
        return norm(w)
    return norm(w) + np.float32(w.fused.count * w.fused.weight)


@mutant("shared-weight-of-the-next-expert", "M59", "fused_weights", real=_SGLANG, claims=FUSED)
def _(w: Work) -> Array:
    """Without a scaling factor the slot kept the weight of the expert whose place it took."""
    return np.asarray(fused_weights(w) * w.weights[:, -1:])

"""Honest variants of shared experts that run as slots of their own."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import fused_weights
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import ANY, Capabilities, Claim, FlatRouting
from moe_routing.reference import Routing

FUSED = Capabilities(claims=(Claim(shared_slots=ANY),))


@honest("shared-weight-by-way-of-the-norm", "fused_weights", claims=FUSED)
def _(w: Work) -> Array:
    """The sum of the routed weights over the scale, over that sum again, and times the scale."""
    plain = fused_weights(w)
    total = w.gathered.sum(axis=1, keepdims=True, dtype=np.float32)
    factor = np.float32(w.config.scale or 1.0)
    found = total * plain / factor / total * factor
    return np.where(np.isfinite(found) & (np.abs(total) > 1e-12), found, plain)


@honest("shared-slots-in-a-flat-answer", "answer", claims=FUSED)
def _(w: Work) -> Routing | FlatRouting:
    """Flat routes name shared experts behind the routed ones of each token."""
    if w.config.shared_slots is None:
        return Routing(weights=w.weights, expert_ids=w.expert_ids)
    weights = np.concatenate([w.weights, w.fused_weights], axis=1)
    ids = np.concatenate([w.expert_ids, w.fused_ids], axis=1).astype(np.int32)
    tokens = np.repeat(np.arange(w.num_tokens), ids.shape[1]).astype(np.int32)
    return FlatRouting(
        scores=weights.reshape(-1),
        token_indices=tokens,
        expert_indices=ids.reshape(-1),
        num_tokens=w.num_tokens,
    )

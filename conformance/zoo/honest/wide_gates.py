"""Honest variants of a gate in float32 beside hidden states of 16 bits."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.honest.precision import least_logits, least_scores, stored
from moe_routing.conformance.zoo.mutants.wide_gates import WIDE, WIDE_LOGITS
from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.differentiator import (
    GradientWork,
    StagedDifferentiator,
    of_hidden,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import weights
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference.formats import INPUT_FORMATS


@honest("float32-gate-least-precise", "logits", "scores", "weights", claims=WIDE)
def _(w: Work, stage: str) -> Array:
    """After a product with a float32 gate, everything is as coarse as the claim permits."""
    if stage == "weights":
        return stored(w, w.config.weights_dtype, weights(w))
    return least_logits(w) if stage == "logits" else least_scores(w)


@honest("float32-logits-as-given", "logits", claims=WIDE_LOGITS)
def _(w: Work) -> Array:
    """Given logits are routed as they come, without a product."""
    given: Array = w.inputs.logits
    return given


@honest("float32-gate-in-float64", "gate_weight", "hidden", claims=WIDE)
def _(w: Work, stage: str) -> Array:
    """A float32 gate may be multiplied in more precision."""
    array: Array = getattr(w.inputs, stage).astype(np.float64)
    return array


@honest(
    "hidden-gradient-of-a-float32-gate",
    "of_hidden",
    claims=WIDE,
    makes=StagedDifferentiator,
)
def _(w: GradientWork) -> Array:
    """Hidden states of 16 bits get a gradient of 16 bits, whatever the gate has."""
    return INPUT_FORMATS[w.inputs.dtype].round(of_hidden(w)).astype(np.float32)

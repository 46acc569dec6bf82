"""Mutants of a gate, or of given logits, in float32 beside hidden states of 16 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.zoo.residents import WHOLE, mutant
from moe_routing.conformance.zoo.router.differentiator import (
    GradientWork,
    StagedDifferentiator,
    of_gate_weight,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import reinterpreted
from moe_routing.conformance.zoo.router.stages import logits
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Claim
from moe_routing.reference import RouterInputs
from moe_routing.reference.formats import INPUT_FORMATS

WIDE = replace(
    WHOLE,
    claims=(Claim(gate_dtype=("float32",)),),
    dtypes=("bfloat16", "float16"),
)
"""A model of 16 bits with a gate in float32."""

WIDE_LOGITS = replace(WIDE, takes="logits")
"""What such a model calls with its logits."""


def cast(inputs: RouterInputs, values: Array) -> Array:
    """Round to the dtype of the hidden states, stored in float32."""
    return INPUT_FORMATS[inputs.dtype].round(values).astype(np.float32)


@mutant(
    "float32-gate-cast-along",
    "M10",
    "gate_weight",
    real="NVIDIA-NeMo/Automodel 0.7.0, glm4_moe",
    claims=WIDE,
)
def _(w: Work) -> Array:
    """The gate's float32 was lost with the model's cast: one token in fifteen chose others."""
    return cast(w.inputs, w.inputs.gate_weight)


@mutant(
    "float32-logits-cast-back",
    "M10",
    "logits",
    real="sgl-project/sglang#38719",
    claims=WIDE,
)
def _(w: Work) -> Array:
    """The product with a float32 gate was cast back to the dtype of the hidden states."""
    return cast(w.inputs, logits(w))


@mutant(
    "given-float32-logits-cast",
    "M10",
    "logits",
    real="sgl-project/sglang#38719",
    claims=WIDE_LOGITS,
)
def _(w: Work) -> Array:
    """Logits that came in float32 were routed in the dtype of the model."""
    return cast(w.inputs, logits(w))


@mutant(
    "given-float32-logits-read-in-halves",
    "M12",
    "logits",
    real="flashinfer-ai/flashinfer@182dc2038",
    claims=WIDE_LOGITS,
)
def _(w: Work) -> Array:
    """The kernel took the dtype of the hidden states for that of the logits: half of each."""
    z = logits(w)
    return reinterpreted(z, "float32", "bfloat16") if w.inputs.dtype == "bfloat16" else z


@mutant(
    "float32-gate-learns-in-16-bits",
    "M64",
    "of_gate_weight",
    real="deepspeedai/DeepSpeed@5a2e705b8",
    claims=WIDE,
    makes=StagedDifferentiator,
)
def _(w: GradientWork) -> Array:
    """The gradient of a gate in float32 went through the model's 16 bits: it was mistrained."""
    return cast(w.inputs, of_gate_weight(w))

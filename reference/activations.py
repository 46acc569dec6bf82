"""What an expert does between its two products: the activation, gated or not, in float64.

Source: ``docs/spec/experts.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from moe_routing.reference.formats import Floats
from moe_routing.reference.scores import sigmoid

Activation = Literal["silu", "gelu", "gelu-tanh", "relu", "clamped-swiglu"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)

CLAMPED = "clamped-swiglu"
"""The activation of gpt-oss: it clamps both halves, and is gated always."""

TANH_SLOPE, TANH_CUBIC = math.sqrt(2.0 / math.pi), 0.044715
"""The constants of the tanh form of GELU."""

_erfc = np.frompyfunc(math.erfc, 1, 1)


def silu(x: Floats) -> Floats:
    """Return ``x * sigmoid(x)``."""
    return x * sigmoid(x)


def gelu(x: Floats) -> Floats:
    """Return ``x`` times the share of a normal distribution that lies below it."""
    tail: Floats = np.asarray(_erfc(-x / math.sqrt(2.0)), np.float64)
    return 0.5 * x * tail


def gelu_tanh(x: Floats) -> Floats:
    """Return the tanh form of GELU, ``x/2 (1 + tanh(y))``, written as ``x * sigmoid(2y)``."""
    return x * sigmoid(2.0 * TANH_SLOPE * (x + TANH_CUBIC * x**3))


def relu(x: Floats) -> Floats:
    """Return ``x`` where it is above 0, and else 0; NaN stays NaN."""
    above: Floats = np.maximum(x, 0.0)
    return above


PLAIN: dict[str, Callable[[Floats], Floats]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu-tanh": gelu_tanh,
    "relu": relu,
}
"""The activations that look at one value."""


def clamped_swiglu(gate: Floats, up: Floats, limit: float, alpha: float) -> Floats:
    """Return gpt-oss's gated activation: the gate clamped from above, ``up`` from both sides."""
    gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return gate * sigmoid(alpha * gate) * (up + 1.0)

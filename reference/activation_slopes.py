"""The derivatives of what an expert does between its two products, in float64.

Source: ``docs/spec/experts.md``. At a kink, of ReLU at 0 or of a clamp at its limit, any slope
between those of its two sides is right; this one is torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from moe_routing.reference.activations import TANH_CUBIC, TANH_SLOPE
from moe_routing.reference.formats import Floats
from moe_routing.reference.scores import sigmoid

_erfc = np.frompyfunc(math.erfc, 1, 1)


def silu_slope(x: Floats) -> Floats:
    """Return ``s (1 + x (1 - s))``, s the sigmoid."""
    s = sigmoid(x)
    return s + x * s * sigmoid(-x)


def gelu_slope(x: Floats) -> Floats:
    """Return the share of a normal distribution below x, and x times its density."""
    share: Floats = 0.5 * np.asarray(_erfc(-x / math.sqrt(2.0)), np.float64)
    return share + x * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def gelu_tanh_slope(x: Floats) -> Floats:
    """Return ``s + x s (1 - s) z'``, s the sigmoid of z, twice the polynomial of x."""
    z = 2.0 * TANH_SLOPE * (x + TANH_CUBIC * x**3)
    s, rise = sigmoid(z), 2.0 * TANH_SLOPE * (1.0 + 3.0 * TANH_CUBIC * x * x)
    return s + x * s * sigmoid(-z) * rise


def relu_slope(x: Floats) -> Floats:
    """Return 1 above 0 and else 0; NaN stays NaN."""
    return np.where(np.isnan(x), x, np.where(x > 0.0, 1.0, 0.0))


SLOPES: dict[str, Callable[[Floats], Floats]] = {
    "silu": silu_slope,
    "gelu": gelu_slope,
    "gelu-tanh": gelu_tanh_slope,
    "relu": relu_slope,
}
"""The derivatives of the activations that look at one value."""


def clamped_slopes(
    gate: Floats, up: Floats, limit: float, alpha: float
) -> tuple[Floats, Floats, Floats]:
    """Return gpt-oss's gated activation, and its derivatives by the gate and by ``up``."""
    opened, shifted = np.minimum(gate, limit), np.clip(up, -limit, limit) + 1.0
    s = sigmoid(alpha * opened)
    rise = s + alpha * opened * s * sigmoid(-alpha * opened)
    by_gate = np.where(gate <= limit, rise * shifted, 0.0)
    by_up = np.where(np.abs(up) <= limit, opened * s, 0.0)
    return opened * s * shifted, by_gate, by_up

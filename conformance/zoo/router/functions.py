"""The score functions in float32, as a router's author would write them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moe_routing.reference.arrays import AnyArray

Array = AnyArray
"""An array of a router of the zoo: float32 unless a stage specifies another dtype."""


def softmax(z: Array, axis: int = -1) -> Array:
    """Subtract the maximum, exponentiate, divide by the sum."""
    if z.size == 0:
        return z
    return shares(np.exp(z - z.max(axis=axis, keepdims=True)), axis)


def shares(values: Array, axis: int = -1) -> Array:
    """Divide by the sum."""
    total: Array = values.sum(axis=axis, keepdims=True)
    return values / total


def sigmoid(z: Array) -> Array:
    """Return ``1 / (1 + exp(-z))`` without overflow."""
    small: Array = np.exp(-np.abs(z))
    total: Array = 1 + small
    return np.where(z >= 0, np.float32(1), small) / total


def sqrtsoftplus(z: Array) -> Array:
    """Return ``sqrt(log(1 + exp(z)))``."""
    softplus: Array = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
    return np.sqrt(softplus)


SCORE_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "sqrtsoftplus": sqrtsoftplus,
    "identity": lambda z: z,
}
"""The score functions in float32, by the names of ``RouterConfig.score``."""

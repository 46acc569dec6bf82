"""The score functions in float32, as a router's author would write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def softmax(z: Array, axis: int = -1) -> Array:
    """Subtract the maximum, exponentiate, divide by the sum."""
    if z.size == 0:
        return z
    shifted = np.exp(z - z.max(axis=axis, keepdims=True))
    return shifted / shifted.sum(axis=axis, keepdims=True)


def sigmoid(z: Array) -> Array:
    """Return ``1 / (1 + exp(-z))`` without overflow."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, np.float32(1), small) / (1 + small)


def sqrtsoftplus(z: Array) -> Array:
    """Return ``sqrt(log(1 + exp(z)))``."""
    return np.sqrt(np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))))


SCORE_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "sqrtsoftplus": sqrtsoftplus,
    "identity": lambda z: z,
}
"""The score functions in float32, by the names of ``RouterConfig.score``."""

"""Scores: what a logit is worth in the competition (docs/spec/scores.md)."""

from __future__ import annotations

import numpy as np

from moe_routing.reference.formats import Floats


def softmax(logits: Floats) -> Floats:
    """Return ``exp(z_e) / sum exp(z)`` over the last axis; all NaN where z has NaN or +inf."""
    shifted: Floats = np.exp(logits - logits.max(axis=-1, keepdims=True))
    total: Floats = shifted.sum(axis=-1, keepdims=True)
    return shifted / total


def sigmoid(logits: Floats) -> Floats:
    """Return ``1 / (1 + exp(-z))``, any shape, without overflow on either side."""
    small = np.exp(np.copysign(logits, -1.0))
    return np.maximum(small, logits >= 0) / (1.0 + small)


def sqrtsoftplus(logits: Floats) -> Floats:
    """Return ``sqrt(log(1 + exp(z)))``, any shape."""
    return np.sqrt(np.logaddexp(0.0, logits))


def identity(logits: Floats) -> Floats:
    """Return the logits themselves: selection in logit space."""
    return logits


SCORE_FUNCTIONS = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "sqrtsoftplus": sqrtsoftplus,
    "identity": identity,
}
"""The score functions by the names of ``RouterConfig.score``."""

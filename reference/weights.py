"""Weights: with what share each selected expert enters the output (docs/spec/weights.md)."""

from __future__ import annotations

import numpy as np

from moe_routing.reference.config import Renormalize, RouterConfig
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.inputs import RouterInputs
from moe_routing.reference.quick import at_columns
from moe_routing.reference.scores import sigmoid, softmax


def gather_weights(
    config: RouterConfig,
    logits: Floats,
    scores: Floats,
    kept: Bools,
    expert_ids: Ids,
) -> Floats:
    """Return ``[T, K]``: what ``config.weights_from`` names, at ``expert_ids [T, K]``.

    ``logits`` are those after the logit op, ``scores`` without the selection bias, all
    ``[T, E]``. Biased scores never become weights.
    """
    match config.weights_from:
        case "scores":
            found: Floats = at_columns(scores, expert_ids)
            return found
        case "masked_scores":
            return np.where(at_columns(kept, expert_ids), at_columns(scores, expert_ids), 0.0)
        case "softmax_of_selected":
            return softmax(at_columns(logits, expert_ids))
        case _:
            return sigmoid(at_columns(logits, expert_ids))


def renormalize(rule: Renormalize | None, weights: Floats) -> Floats:
    """Divide each row of ``weights [T, K]`` by ``max(norm + eps, floor)``."""
    if rule is None:
        return weights
    powers = np.abs(weights) ** rule.order
    norm: Floats = powers.sum(axis=1, keepdims=True) ** (1.0 / rule.order)
    return weights / np.maximum(norm + rule.eps, rule.floor)


def scale(
    config: RouterConfig,
    inputs: RouterInputs,
    weights: Floats,
    expert_ids: Ids,
) -> Floats:
    """Multiply ``weights [T, K]`` by the routed scaling factor, then by each expert's own."""
    weights = weights * config.scale
    if inputs.per_expert_scale is not None:
        weights = weights * inputs.per_expert_scale.astype(np.float64)[expert_ids]
    return weights

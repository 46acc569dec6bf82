"""Logits: how well each expert's gate row matches a hidden state (docs/spec/logits.md)."""

from __future__ import annotations

import numpy as np

from moe_routing.reference.config import RmsNorm, RouterConfig
from moe_routing.reference.formats import Floats
from moe_routing.reference.inputs import RouterInputs


def normalize_input(norm: RmsNorm | None, inputs: RouterInputs) -> Floats:
    """Return the hidden states ``[T, H]`` that the gate sees, in float64."""
    hidden = inputs.hidden.astype(np.float64)
    if norm is None:
        return hidden
    mean_square: Floats = np.mean(hidden * hidden, axis=1, keepdims=True)
    scale = 1.0 if inputs.hidden_scale is None else inputs.hidden_scale.astype(np.float64)
    normed: Floats = hidden / np.sqrt(mean_square + norm.eps) * scale * inputs.hidden_size**-0.5
    return normed


def gate_products(config: RouterConfig, inputs: RouterInputs) -> tuple[Floats, ...]:
    """Return the products that the logits sum, each ``[T, E]``: ``x W^T``, then ``x d^T``.

    Equal gate rows give equal logits for certain only where the sums are exact: a matrix
    product may add up two rows in different orders, so that their logits differ in the last
    bit of float64 and do not tie.
    """
    x = normalize_input(config.input_norm, inputs)
    product = x @ inputs.gate_weight.astype(np.float64).T
    if inputs.gate_delta is None:
        return (product,)
    return product, x @ inputs.gate_delta.astype(np.float64).T


def gate_logits(products: tuple[Floats, ...], inputs: RouterInputs) -> Floats:
    """Return ``x W^T + x d^T + b``, shape ``[T, E]``, before the logit op.

    These are the values that ``Routing.logits`` reports.
    """
    logits = products[0] if len(products) == 1 else products[0] + products[1]
    return logits if inputs.gate_bias is None else logits + inputs.gate_bias


def logit_op(config: RouterConfig, logits: Floats) -> Floats:
    """Apply the logit multiplier, then the softcap ``c * tanh(logit / c)``; any shape.

    Nondecreasing where the multiplier is not negative.
    """
    if config.logit_multiplier != 1.0:
        logits = logits * config.logit_multiplier
    if config.logit_softcap is not None:
        logits = np.tanh(logits / config.logit_softcap) * config.logit_softcap
    return logits

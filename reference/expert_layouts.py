"""The weights of experts as libraries store them: gate and up in one array, or transposed.

Source: ``docs/spec/experts.md``.
"""

from __future__ import annotations

import numpy as np

from moe_routing.reference.experts import Array, ExpertsInputs


def gate_up(inputs: ExpertsInputs, *, interleaved: bool = False, transposed: bool = False) -> Array:
    """Return gate and up as one array, ``[E, 2F, H]``, or ``[E, H, 2F]`` where ``transposed``.

    The rows of the gate come first, then those of up; ``interleaved`` takes one of each in turn
    (gpt-oss). Errors: ``ValueError`` where there is no gate.
    """
    joined = _joined(_gate("gate_weight", inputs.gate_weight), inputs.up_weight, interleaved)
    return _turned(joined, transposed)


def gate_up_bias(inputs: ExpertsInputs, *, interleaved: bool = False) -> Array | None:
    """Return the biases of gate and up as one array ``[E, 2F]``, or None where there is neither.

    A bias that is missing is 0. Errors: ``ValueError`` where there is no gate.
    """
    _gate("gate_weight", inputs.gate_weight)
    if inputs.gate_bias is None and inputs.up_bias is None:
        return None
    none = np.zeros(inputs.up_weight.shape[:2], np.float32)
    gate = none if inputs.gate_bias is None else inputs.gate_bias
    return _joined(gate, none if inputs.up_bias is None else inputs.up_bias, interleaved)


def up_weights(inputs: ExpertsInputs, *, transposed: bool = False) -> Array:
    """Return up alone, ``[E, F, H]``, or ``[E, H, F]`` where ``transposed``."""
    return _turned(inputs.up_weight, transposed)


def down_weights(inputs: ExpertsInputs, *, transposed: bool = False) -> Array:
    """Return down, ``[E, H, F]``, or ``[E, F, H]`` where ``transposed``."""
    return _turned(inputs.down_weight, transposed)


def _joined(gate: Array, up: Array, interleaved: bool) -> Array:
    if not interleaved:
        return np.concatenate([gate, up], axis=1)
    pairs = np.stack([gate, up], axis=2)
    return pairs.reshape(gate.shape[0], -1, *gate.shape[2:])


def _turned(array: Array, transposed: bool) -> Array:
    return np.ascontiguousarray(array.swapaxes(1, 2)) if transposed else array


def _gate(name: str, array: Array | None) -> Array:
    if array is None:
        raise ValueError(f"Cannot join gate and up: {name} is None, so that there is up alone")
    return array

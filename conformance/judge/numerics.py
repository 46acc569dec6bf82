"""Declared numerics: which of them can affect a call, and the errors of its products.

Derivations: docs/spec/judging.md, "Declared numerics".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT32, Bools, Floats

Matrix = npt.NDArray[np.float32] | Floats

_PLAIN = Numerics()
_TF32_UNIT = 2.0**-10  # 11 significand bits, truncated rather than rounded
_TF32_BITS = 11
_BELOW_TF32 = np.uint32(0x1FFF)  # the bits of a float32 that tf32 cuts off


def without_idle(config: RouterConfig, inputs: RouterInputs, numerics: Numerics) -> Numerics:
    """Drop the declared numerics that cannot affect this call.

    A sigmoid's form matters where a sigmoid is computed, and coarser products where an
    operand has what they cut off. A normalised input is taken to have all of it.
    """
    if numerics == _PLAIN:
        return numerics
    sigmoid = config.score == "sigmoid" or config.weights_from == "sigmoid_of_selected"
    cut = numerics.multiply == "tf32" and _loses(config, inputs, _cut_by_tf32)
    flushed = numerics.flush_subnormals and _loses(config, inputs, _subnormal)
    return replace(
        numerics,
        multiply="tf32" if cut else "exact",
        flush_subnormals=flushed,
        sigmoid=numerics.sigmoid if sigmoid else "relative",
        softplus=numerics.softplus if config.score == "sqrtsoftplus" else "relative",
    )


def products_of(numerics: Numerics) -> tuple[str, bool]:
    """Return the part of ``numerics`` that the bounds of the logits depend on."""
    return numerics.multiply, numerics.flush_subnormals


def _loses(config: RouterConfig, inputs: RouterInputs, lost: Callable[[Matrix], Bools]) -> bool:
    """Return whether any operand of the gate's products has a number that is ``lost``."""
    operands: list[Matrix] = [inputs.hidden, inputs.gate_weight]
    if inputs.gate_delta is not None:
        operands += [inputs.gate_delta, merged(inputs.gate_weight, inputs.gate_delta)]
    return config.input_norm is not None or any(bool(lost(each).any()) for each in operands)


def _cut_by_tf32(values: Matrix) -> Bools:
    cut: Bools = (values.view(np.uint32) & _BELOW_TF32) != 0
    return cut


def _subnormal(values: Matrix) -> Bools:
    below: Bools = (np.abs(values) < FLOAT32.tiny) & (values != 0.0)
    return below


def operand_errors(
    x: Matrix, x_error: Floats | None, matrices: Sequence[Matrix], numerics: Numerics
) -> Floats | None:
    """Return the error in ``x A^T`` from errors of the operands, None where they have none.

    A delta may be multiplied by itself, or be added to the gate first, and the sum of two
    numbers may lose bits that neither has: the larger of the two errors counts.
    """
    if x_error is None and numerics.multiply == "exact" and not numerics.flush_subnormals:
        return None
    apart = reduce(np.add, [_product_error(x, x_error, matrix, numerics) for matrix in matrices])
    if len(matrices) == 1:
        return apart
    return np.maximum(apart, _product_error(x, x_error, merged(*matrices), numerics))


def merged(gate: Matrix, delta: Matrix) -> Matrix:
    """Return the sum of two matrices ``[E, H]`` in their dtype, finite where they are."""
    with np.errstate(over="ignore"):
        total = gate + delta
    return np.nan_to_num(total, copy=False, nan=np.nan)


def _product_error(x: Matrix, x_error: Floats | None, matrix: Matrix, numerics: Numerics) -> Floats:
    x, a = x.astype(np.float64), matrix.astype(np.float64)
    dx, da = _operand_error(x, x_error, numerics), _operand_error(a, None, numerics)
    error: Floats = dx @ (np.abs(a) + da).T + np.abs(x) @ da.T
    return error


def _operand_error(values: Floats, own: Floats | None, numerics: Numerics) -> Floats:
    """Return the error of each operand of a product: its ``own``, and what is declared.

    An operand with an error of its own may be any number around its value, of any bits.
    """
    known: Floats = np.zeros(values.shape) if own is None else own
    size, error = np.abs(values), np.zeros(values.shape)
    if numerics.multiply == "tf32":
        mantissa = np.frexp(values)[0] * 2.0**_TF32_BITS
        fits = (mantissa == np.rint(mantissa)) & (known == 0.0)
        error = np.where(fits, 0.0, _TF32_UNIT * (size + known))
    if numerics.flush_subnormals:
        error = np.where(size - known < FLOAT32.tiny, size, error)
    return known + error

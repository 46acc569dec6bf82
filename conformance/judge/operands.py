"""What errors of a product's operands come to (docs/spec/judging.md, "Declared numerics")."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt

from moe_routing.implementations import Numerics
from moe_routing.reference.formats import FLOAT32, Floats

_TF32_UNIT = 2.0**-10  # 11 significand bits, truncated rather than rounded
_TF32_BITS = 11

Matrix = npt.NDArray[np.float32] | Floats


def operand_errors(
    x: Matrix, x_error: Floats | None, matrices: Sequence[Matrix], numerics: Numerics
) -> Floats | None:
    """Return what errors of the operands come to in ``x A^T``, None where they have none.

    A delta may be multiplied by itself or be added to the gate before, and the sum of two
    numbers may have what neither has: whichever loses more.
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
    """Return what each operand of a product errs by: its ``own`` error, and what is declared.

    One with an error of its own may be any number around its value, of any bits.
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

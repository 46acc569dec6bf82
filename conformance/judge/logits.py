"""Which logits rounding can explain (docs/spec/judging.md, "Logits")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.intervals import DIVISION, ELEMENTARY, Interval, underflow
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, FloatFormat, Floats
from moe_routing.reference.logits import normalize_input

_TF32_UNIT = 2.0**-10  # 11 significand bits, truncated rather than rounded
_TF32_BITS = 11
_NO_BIT = 2000  # beyond every exponent of float64
_INPUT_NORM_STORES = 4  # the normed input, the scale, the constant 1/sqrt(H), their product


@dataclass(frozen=True, kw_only=True, eq=False)
class LogitBounds:
    """The permitted logits ``[T, E]`` of a call.

    ``exact`` marks logits that no order of summation rounds at all, and ``overflows``
    those that may leave the range of a permitted dtype, whose tokens are judged for
    distinct ids in range only.
    """

    reference: Floats
    permitted: Interval
    exact: npt.NDArray[np.bool_]
    overflows: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Term:
    """One product ``x A^T`` of the gate: its value, its magnitude |x|.|A|, its error."""

    value: Floats
    magnitude: Floats
    products: Floats
    error: Floats


def format_of(field: str, inputs: RouterInputs) -> FloatFormat:
    """Return the format that a ``*_dtype`` field of the config stands for."""
    return INPUT_FORMATS[inputs.dtype if field == "input" else field]


def logit_bounds(
    config: RouterConfig, inputs: RouterInputs, reference: Floats, numerics: Numerics
) -> LogitBounds:
    """Bound every logit: accumulation A in float32, plus storage R in ``logits_dtype``.

    ``reference`` is ``Stages.logits``. NaN logits get an empty bound, [0, 0]: their
    tokens are never judged.
    """
    out = format_of(config.logits_dtype, inputs)
    bias = np.zeros(1) if inputs.gate_bias is None else inputs.gate_bias.astype(np.float64)
    finite_bias = np.where(np.isfinite(bias), bias, 0.0)
    x, x_error = _gate_input(config, inputs, out)
    parts = [_term(x, x_error, inputs.gate_weight, numerics)]
    if inputs.gate_delta is not None:
        parts.append(_term(x, x_error, inputs.gate_delta, numerics))
    magnitude = sum(part.magnitude for part in parts) + np.abs(finite_bias)
    exact = _exactness(inputs, magnitude, finite_bias)
    clean = sum(part.error for part in parts) == 0.0
    n = sum(part.products for part in parts) + len(parts) - 1 + (inputs.gate_bias is not None)
    z = sum(part.value for part in parts) + finite_bias
    gamma = n * FLOAT32.unit_roundoff / (1.0 - n * FLOAT32.unit_roundoff)
    accumulation = gamma * magnitude + n * FLOAT32.tiny + sum(part.error for part in parts)
    in_float32 = clean & exact(FLOAT32)
    accumulation = np.where(in_float32, 0.0, accumulation)
    storage = out.unit_roundoff * (_stored(parts, finite_bias, z) + accumulation)
    storage = np.where(clean & exact(out), 0.0, storage)
    terms = len(parts) + (inputs.gate_bias is not None)
    radius = accumulation + storage + terms * underflow(out)
    largest_part = np.max([np.abs(part.value) for part in parts], axis=0)
    overflows = (magnitude > FLOAT32.largest) | (
        np.maximum(np.abs(z), largest_part) + radius > out.largest
    )
    return LogitBounds(
        reference=reference,
        permitted=_around(reference, radius, z),
        exact=clean & exact(out) & np.isfinite(reference),
        overflows=overflows | np.isnan(magnitude),
    )


def _around(reference: Floats, radius: Floats, z: Floats) -> Interval:
    """Return reference ± radius; an infinite logit (an infinite bias) is a point."""
    centre = np.where(np.isfinite(reference) & np.isfinite(radius), reference, 0.0)
    radius = np.where(np.isfinite(radius), radius, 0.0)
    bounds = Interval(centre - radius, centre + radius)
    infinite = np.isinf(reference) & np.isfinite(z)
    return Interval.point(np.where(infinite, reference, 0.0)).where(infinite, bounds)


def _gate_input(
    config: RouterConfig, inputs: RouterInputs, out: FloatFormat
) -> tuple[Floats, Floats]:
    """Return what the gate multiplies, and its absolute error: 0 without an input norm.

    The mean square of H values carries (H + 2) roundings, halved by the root; then come
    the root itself, the quotient and two products, all in float32 or better; where the
    logits may be stored in the input dtype, so may the normed input, four times.
    """
    x = normalize_input(config.input_norm, inputs)
    if config.input_norm is None:
        return x, np.zeros(1)
    roundings = (inputs.hidden_size + 2) / 2 + ELEMENTARY + DIVISION + 2
    relative = roundings * FLOAT32.unit_roundoff + _INPUT_NORM_STORES * out.unit_roundoff
    scale = 1.0 if inputs.hidden_scale is None else np.abs(inputs.hidden_scale)
    unscaled = np.abs(normalize_input(config.input_norm, replace(inputs, hidden_scale=None)))
    reach = 1.0 + scale + unscaled * inputs.hidden_size**0.5
    error = relative * np.abs(x) + _INPUT_NORM_STORES * underflow(out) * reach
    hidden = inputs.hidden.astype(np.float64)
    squares = (hidden * hidden).sum(axis=1, keepdims=True)
    return np.where(squares > FLOAT32.largest, np.nan, x), error


def _term(x: Floats, x_error: Floats, matrix: npt.NDArray[np.float32], numerics: Numerics) -> _Term:
    a = matrix.astype(np.float64)
    magnitude = np.abs(x) @ np.abs(a).T
    rows, columns = (x != 0).sum(axis=1), (a != 0).sum(axis=1)
    dx, da = x_error + _operand_error(x, numerics), _operand_error(a, numerics)
    error = np.zeros(1)
    if dx.any() or da.any():
        dx = np.broadcast_to(dx, x.shape)
        error = dx @ (np.abs(a) + da).T + np.abs(x) @ da.T
    return _Term(
        value=x @ a.T,
        magnitude=magnitude,
        products=np.minimum(rows[:, None], columns[None, :]).astype(np.float64),
        error=error,
    )


def _operand_error(values: Floats, numerics: Numerics) -> Floats:
    """Return what declared numerics may take from each operand of a product."""
    error = np.zeros(values.shape)
    if numerics.multiply == "tf32":
        mantissa = np.frexp(values)[0] * 2.0**_TF32_BITS
        error = np.where(mantissa == np.rint(mantissa), 0.0, _TF32_UNIT * np.abs(values))
    if numerics.flush_subnormals:
        error = np.where(np.abs(values) < FLOAT32.tiny, np.abs(values), error)
    return error


def _stored(parts: list[_Term], bias: Floats, z: Floats) -> Floats:
    """Return the sum of the magnitudes that may each be rounded to the logits dtype.

    One part alone is rounded once. Several may be stored apart, and so may their
    partial sums, whose magnitude the parts' own bound.
    """
    if len(parts) == 1 and not bias.any():
        return np.abs(z)
    apart = sum(np.abs(part.value) for part in parts)
    partial_sums = apart if len(parts) > 1 and bias.any() else 0.0
    return apart + partial_sums + np.abs(bias) + np.abs(z)


def _exactness(
    inputs: RouterInputs, magnitude: Floats, bias: Floats
) -> Callable[[FloatFormat], npt.NDArray[np.bool_]]:
    """Return a test, by format, for logits that no order of summation rounds.

    With every product and term a multiple of q, a power of two, every partial sum is a
    multiple of q of at most ``magnitude``; a format of p bits holds all of those where
    magnitude / q <= 2**p. Below the normal range of float32 nothing counts as exact.
    """
    a = lowest_bit(inputs.gate_weight)
    if inputs.gate_delta is not None:
        a = np.minimum(a, lowest_bit(inputs.gate_delta))
    product = lowest_bit(inputs.hidden)[:, None] + a[None, :]
    quantum = np.minimum(product, lowest_bit(bias.astype(np.float32)[:, None])[None, :])

    def exact(form: FloatFormat) -> npt.NDArray[np.bool_]:
        with np.errstate(over="ignore", invalid="ignore"):
            fits = magnitude <= np.ldexp(1.0, np.clip(quantum + form.precision, -1000, 1000))
        return fits & ((quantum >= form.min_exponent) | (magnitude == 0.0))

    return exact


def lowest_bit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return for each of ``rows [N, M]`` the exponent of the lowest set bit in it.

    A row of zeros, which rounds nowhere, counts as a high exponent; a value that is not
    finite as a low one, since nothing is exact beside it.
    """
    mantissa, exponent = np.frexp(rows)
    finite = np.isfinite(rows)
    integers = np.where(finite, mantissa * np.float32(2.0**24), 0.0).astype(np.int32)
    trailing = np.frexp((integers & -integers).astype(np.float32))[1] - 1
    bit = np.where(integers == 0, _NO_BIT, exponent - 24 + trailing)
    bit = np.where(finite, bit, -_NO_BIT)
    return bit.min(axis=1, initial=_NO_BIT).astype(np.int64)

"""Which logits rounding can explain (docs/spec/judging.md, "Logits")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from moe_routing.conformance.judge.exactness import Exactness
from moe_routing.conformance.judge.intervals import DIVISION, ELEMENTARY, Interval, underflow
from moe_routing.conformance.judge.numerics import Matrix, operand_errors
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs, Stages
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.logits import normalize_input
from moe_routing.reference.quick import some, surely_finite

_INPUT_NORM_STORES = 4  # the normed input, the scale, the constant 1/sqrt(H), their product
_LARGE = 2**26  # products of a call from which a float32 sum of magnitudes pays


@dataclass(frozen=True, kw_only=True, eq=False)
class LogitBounds:
    """The permitted logits ``[T, E]`` of a call.

    ``exact`` marks logits that no order of summation rounds at all, and ``overflows``
    those that may leave the range of a permitted dtype, whose tokens are judged for
    distinct ids in range only.
    """

    reference: Floats
    permitted: Interval
    exact: Bools
    overflows: Bools

    def contain(self, own: Floats) -> Bools:
        """Return which of an answer's logits ``[T, E]`` are permitted."""
        return self.permitted.contains(own)

    def stay_within(self, form: FloatFormat, factor: float) -> bool:
        """Whether none is sure to leave its format, nor ``factor`` times it ``form``: at once.

        False says nothing: each token has to be looked at.
        """
        return False

    def rows(self, which: Ids | slice) -> LogitBounds:
        """Take the rows ``which``."""
        return LogitBounds(
            reference=self.reference[which],
            permitted=self.permitted.rows(which),
            exact=self.exact[which],
            overflows=self.overflows[which],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Terms:
    """What a logit sums: products ``x A^T`` (``values``), and a linear bias or None.

    ``magnitude`` is the sum of all magnitudes, ``count`` the number of products and terms
    that a sum may round, of a shape that broadcasts to ``[T, E]``, and ``error`` what the
    operands' own errors come to, None where they have none.
    """

    values: Sequence[Floats]
    bias: Floats | None
    magnitude: Floats
    exactness: Exactness
    count: Floats
    error: Floats | None

    def rows(self, which: slice) -> Terms:
        """Take the rows ``which``."""
        return Terms(
            values=[each[which] for each in self.values],
            bias=self.bias,
            magnitude=self.magnitude[which],
            exactness=self.exactness.rows(which),
            count=self.count[which],
            error=None if self.error is None else self.error[which],
        )


def format_of(field: str, inputs: RouterInputs) -> FloatFormat:
    """Return the format that a ``*_dtype`` field of the config stands for."""
    return INPUT_FORMATS[inputs.dtype if field == "input" else field]


def logit_bounds(
    config: RouterConfig, inputs: RouterInputs, done: Stages, numerics: Numerics
) -> LogitBounds:
    """Bound every logit: accumulation A in float32, plus storage R in ``logits_dtype``.

    ``done`` are the reference's stages. NaN logits get an empty bound, [0, 0]: their
    tokens are never judged.
    """
    out = format_of(config.logits_dtype, inputs)
    terms = logit_terms(config, inputs, done.products, numerics)
    return bounds_of_terms(terms, done.logits, out)


def bounds_of_terms(terms: Terms, logits: Floats, out: FloatFormat) -> LogitBounds:
    """Bound the ``logits`` that have these terms and are stored in ``out``: all, or some rows."""
    clean = True if terms.error is None else terms.error == 0.0
    in_float32 = terms.exactness.within(FLOAT32) & clean
    exact = in_float32 if out is FLOAT32 else terms.exactness.within(out) & clean
    stored, largest = _stored(terms, logits)
    accumulation = _accumulation(terms, in_float32)
    storage = stored + accumulation
    storage *= out.unit_roundoff
    radius = accumulation + _zero_where(exact, storage)
    radius += (len(terms.values) + (terms.bias is not None)) * underflow(out)
    fits = (terms.magnitude <= FLOAT32.largest) & ~(largest + radius > out.largest)
    return LogitBounds(
        reference=logits,
        permitted=_around(logits, radius, terms.bias),
        exact=exact & np.isfinite(logits),
        overflows=~fits,
    )


def _accumulation(terms: Terms, exact: Bools) -> Floats:
    n = terms.count
    accumulation: Floats = n * FLOAT32.unit_roundoff / (1.0 - n * FLOAT32.unit_roundoff)
    accumulation = accumulation * terms.magnitude
    accumulation += n * FLOAT32.tiny
    if terms.error is not None:
        accumulation += terms.error
    return _zero_where(exact, accumulation)


def _zero_where(exact: Bools, error: Floats) -> Floats:
    return np.where(exact, 0.0, error) if some(exact) else error


def _around(reference: Floats, radius: Floats, bias: Floats | None) -> Interval:
    """Return reference ± radius; an infinite logit (an infinite bias) is a point."""
    bounds = Interval(reference - radius, reference + radius)
    if surely_finite(bounds.lo) and surely_finite(bounds.hi):
        return bounds
    centre = np.where(np.isfinite(reference) & np.isfinite(radius), reference, 0.0)
    radius = np.where(np.isfinite(radius), radius, 0.0)
    bounds = Interval(centre - radius, centre + radius)
    if bias is None:
        return bounds
    infinite = np.isinf(reference) & np.isinf(bias)
    return Interval.point(np.where(infinite, reference, 0.0)).where(infinite, bounds)


def _gate_input(
    config: RouterConfig, inputs: RouterInputs, out: FloatFormat
) -> tuple[Matrix, Floats | None]:
    """Return what the gate multiplies, and its absolute error: None without an input norm.

    The mean square of H values carries (H + 2) roundings, halved by the root; then come
    the root itself, the quotient and two products, all in float32 or better; where the
    logits may be stored in the input dtype, so may the normed input, four times.
    """
    if config.input_norm is None:
        return inputs.hidden, None
    x = normalize_input(config.input_norm, inputs)
    roundings = (inputs.hidden_size + 2) / 2 + ELEMENTARY + DIVISION + 2
    relative = roundings * FLOAT32.unit_roundoff + _INPUT_NORM_STORES * out.unit_roundoff
    scale = 1.0 if inputs.hidden_scale is None else np.abs(inputs.hidden_scale)
    unscaled = np.abs(normalize_input(config.input_norm, replace(inputs, hidden_scale=None)))
    reach = 1.0 + scale + unscaled * inputs.hidden_size**0.5
    error = relative * np.abs(x) + _INPUT_NORM_STORES * underflow(out) * reach
    hidden = inputs.hidden.astype(np.float64)
    squares = (hidden * hidden).sum(axis=1, keepdims=True)
    return np.where(squares > FLOAT32.largest, np.nan, x), error


def logit_terms(
    config: RouterConfig, inputs: RouterInputs, products: Sequence[Floats], numerics: Numerics
) -> Terms:
    """Return the terms of every logit, and which call-wide facts make some of them exact."""
    matrices: list[Matrix] = [inputs.gate_weight]
    if inputs.gate_delta is not None:
        matrices.append(inputs.gate_delta)
    bias = None if inputs.gate_bias is None else inputs.gate_bias.astype(np.float64)
    x, x_error = _gate_input(config, inputs, format_of(config.logits_dtype, inputs))
    magnitude, exactness = _magnitude(inputs, x, matrices, bias)
    return Terms(
        values=products,
        bias=bias,
        magnitude=magnitude,
        exactness=exactness,
        count=products_at_most(inputs, x, matrices),
        error=operand_errors(x, x_error, matrices, numerics),
    )


def _magnitude(
    inputs: RouterInputs, x: Matrix, matrices: Sequence[Matrix], bias: Floats | None
) -> tuple[Floats, Exactness]:
    """Return ``|x|.|W| + |x|.|D| + |b|``, and the exactness of the logits.

    In a large call the products are summed in float32, where an exact logit has an exact
    magnitude; with none exact, the sum is rounded up, by more than its H roundings.
    """
    finite = None if bias is None else np.where(np.isfinite(bias), bias, 0.0)

    def summed(dtype: type[np.floating[Any]]) -> Floats:
        rows = np.abs(x, dtype=dtype)
        products = [rows @ np.abs(a, dtype=dtype).T for a in matrices]
        total = reduce(np.add, [each.astype(np.float64, copy=False) for each in products])
        return total if finite is None else total + np.abs(finite)

    size = inputs.hidden_size
    if x.dtype == np.float32 and len(x) * inputs.num_experts * size > _LARGE:
        magnitude = summed(np.float32)
        exactness = Exactness.of(inputs, magnitude, finite)
        if exactness.quantum is None:
            gamma = size * FLOAT32.unit_roundoff / (1.0 - size * FLOAT32.unit_roundoff)
            magnitude += len(matrices) * size * FLOAT32.tiny
            magnitude *= 1.0 + 2.0 * gamma
            return magnitude, exactness
    magnitude = summed(np.float64)
    return magnitude, Exactness.of(inputs, magnitude, finite)


def products_at_most(inputs: RouterInputs, x: Matrix, matrices: Sequence[Matrix]) -> Floats:
    """Return how many products and terms a logit's sum may round; broadcasts to ``[T, E]``."""
    count = reduce(np.add, [_products(x, matrix) for matrix in matrices])
    return count + len(matrices) - 1 + (inputs.gate_bias is not None)


def _products(x: Matrix, matrix: Matrix) -> Floats:
    """Return the most products that are not 0, of a shape that broadcasts to ``[T, E]``."""
    rows, columns = (x != 0).sum(axis=1), (matrix != 0).sum(axis=1)
    if len(columns) and columns.min() == columns.max():
        columns = columns[:1]
    least: Ids = np.minimum(rows[:, None], columns)
    return least.astype(np.float64)


def _stored(terms: Terms, logits: Floats) -> tuple[Floats, Floats]:
    """Return the sum, and the greatest, of the magnitudes that each may be stored apart.

    One part alone is rounded once. Several may be stored apart, and so may their
    partial sums, whose magnitude the parts' own bound.
    """
    bias = None if terms.bias is None else np.where(np.isfinite(terms.bias), terms.bias, 0.0)
    total = np.abs(logits if bias is None else reduce(np.add, terms.values) + bias)
    if len(terms.values) == 1 and bias is None:
        return total, total
    apart = [np.abs(value) for value in terms.values]
    largest = np.maximum(total, np.max(apart, axis=0))
    if bias is not None and len(apart) == 1 and not bias.any():
        return total, largest
    stored = reduce(np.add, apart)
    if bias is None:
        return stored + total, largest
    if len(apart) > 1 and bias.any():
        stored = stored + stored
    return stored + np.abs(bias) + total, largest

"""Logits as points, and the least that a permitted logit may be away from its own.

Derivations: docs/spec/judging.md, "What certainly lies within".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.exactness import most_quantum
from moe_routing.conformance.judge.intervals import DIVISION, ELEMENTARY, Interval, store_unit
from moe_routing.conformance.judge.logits import format_of, products_at_most
from moe_routing.conformance.judge.numerics import products_of
from moe_routing.implementations import Numerics
from moe_routing.reference.formats import FLOAT32, FloatFormat, Floats
from moe_routing.reference.logits import normalize_input

_SOME = 64
"""Columns that a lower bound of the magnitudes of a logit is the sum of."""

_BELOW = 1.0 - 2.0**-10
"""What is used of that; the rest is more than its float32 sum and float64 lose."""

_PART, _MANY = 256, 448
"""Summands of one part of a logit, and those from which parts pay."""

_NORM_STORES = 4


@dataclass(frozen=True, eq=False)
class LogitPoints:
    """Logits ``[T, E]``; with ``off``, what a permitted logit may be away from each, at the least.

    None is away further than ``most``.
    """

    logits: Floats
    off: Floats | None = None
    most: float = 0.0

    @property
    def least(self) -> Interval:
        """Intervals within the permitted ones."""
        if self.off is None:
            return Interval.point(self.logits)
        return Interval(self.logits - self.off, self.logits + self.off)


def reference_points(bounds: Bounds) -> LogitPoints:
    """Return the exact logits of a call, and how far off those of a backend may be at the least.

    Or such as are summed in float32 in parts, which takes as much off what others may be.
    """
    inputs, config = bounds.inputs, bounds.config
    with np.errstate(all="ignore"):
        x: Any = inputs.hidden
        if config.input_norm is not None:
            x = normalize_input(config.input_norm, inputs)
        count = products_at_most(inputs, x, _matrices(bounds))
        spent = 0.0
        if "reference" in vars(bounds) or config.input_norm is not None or count.min() < _MANY:
            logits = bounds.reference.logits
        else:
            logits, spent = _in_parts(bounds), _PART + 6.0
        off = _least_off(bounds, x, logits, count - spent)
        return LogitPoints(logits, off, _most_off(bounds, x, logits))


def _in_parts(bounds: Bounds) -> Floats:
    """Return the logits, each of parts that are summed in float32 and added in float64."""
    inputs = bounds.inputs
    total = np.zeros((inputs.num_tokens, inputs.num_experts))
    for matrix in _matrices(bounds):
        for first in range(0, inputs.hidden_size, _PART):
            part = slice(first, first + _PART)
            total += inputs.hidden[:, part] @ matrix[:, part].T
    return total if inputs.gate_bias is None else total + inputs.gate_bias


def _matrices(bounds: Bounds) -> list[npt.NDArray[np.float32]]:
    gate, delta = bounds.inputs.gate_weight, bounds.inputs.gate_delta
    return [gate] if delta is None else [gate, delta]


def _least_off(bounds: Bounds, x: Any, logits: Floats, count: Floats) -> Floats:
    """Return the rounding of some summands, and of the store, where no sum of them is exact.

    It is ``count`` units of float32.
    """
    inputs, matrices = bounds.inputs, _matrices(bounds)
    step = max(1, inputs.hidden_size // _SOME)
    some = np.abs(x[:, ::step], dtype=np.float32)
    parts = [some @ np.abs(each[:, ::step]).T for each in matrices]
    size = reduce(np.add, parts).astype(np.float64) * _BELOW
    quantum: Any = 0.0
    if bounds.config.input_norm is None:  # whose own errors leave nothing exact
        quantum = most_quantum(inputs.hidden, matrices)[:, None]
    units = count * FLOAT32.unit_roundoff
    off = np.where(size > quantum * 2.0**FLOAT32.precision, units * size, 0.0)
    if store := store_unit(_out(bounds)):
        stored = size > quantum * 2.0 ** _out(bounds).precision
        off += np.where(stored, _BELOW * store * np.abs(logits), 0.0)
    return off


def _most_off(bounds: Bounds, x: Any, logits: Floats) -> float:
    """Return no less than a permitted logit is off, after the logit op: sums by Cauchy-Schwarz."""
    inputs, out, norm = bounds.inputs, _out(bounds), bounds.config.input_norm
    if products_of(bounds.numerics) != products_of(Numerics()):
        return np.inf
    matrices = _matrices(bounds)
    bias = 0.0 if inputs.gate_bias is None else _most(inputs.gate_bias)
    size = _longest(x) * sum(_longest(each) for each in matrices) + bias
    units = len(matrices) * inputs.hidden_size + 2.0
    if norm is not None:
        units += inputs.hidden_size / 2.0 + 3.0 + ELEMENTARY + DIVISION
    summed = 2.0 * units * FLOAT32.unit_roundoff * size
    stores = _NORM_STORES * size if norm is not None else 0.0
    one = len(matrices) == 1 and inputs.gate_bias is None
    stores += (_most(logits) if one else 3.0 * size) + summed
    most = summed + 2.0 * out.unit_roundoff * stores + 8.0 * out.tiny * (1.0 + _longest(x))
    return float(most * max(1.0, abs(bounds.config.logit_multiplier)))


def _out(bounds: Bounds) -> FloatFormat:
    return format_of(bounds.config.logits_dtype, bounds.inputs)


def _most(values: npt.NDArray[Any]) -> float:
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))


def _longest(rows: npt.NDArray[Any]) -> float:
    """Return at least the greatest norm of a row, NaN where one is."""
    squares = float(np.einsum("ij,ij->i", rows, rows).max(initial=0.0))
    lost = 2.0 * rows.shape[1] * FLOAT32.unit_roundoff  # of squares, and of their sum
    return float(np.sqrt((squares + rows.shape[1] * FLOAT32.tiny) * (1.0 + lost)))

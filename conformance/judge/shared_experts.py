"""Which shared-expert contributions rounding can explain (docs/spec/judging.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.intervals import (
    ROUNDING,
    Interval,
    division,
    elementary,
    underflow,
)
from moe_routing.conformance.judge.quotients import EXPONENT
from moe_routing.reference import SharedExpertConfig, SharedExpertInputs
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, FloatFormat, Floats
from moe_routing.reference.scores import sigmoid


@dataclass(frozen=True, eq=False)
class _Value:
    """A stage's exact value and the largest error that rounding may have left in it."""

    exact: Floats
    error: Floats


def contribution_bounds(config: SharedExpertConfig, inputs: SharedExpertInputs) -> Interval:
    """Bound the contribution ``[T, H]`` by running the forward error through every stage.

    Products accumulate in float32; every stage may be stored in ``inputs.dtype``.
    """
    form = INPUT_FORMATS[inputs.dtype]
    x = _Value(inputs.hidden.astype(np.float64), np.zeros(1))
    gate = _linear(x, inputs.gate_proj.astype(np.float64), form)
    up = _linear(x, inputs.up_proj.astype(np.float64), form)
    inner = _product(_product(gate, _sigmoid(gate, form), form), up, form)
    output = _linear(inner, inputs.down_proj.astype(np.float64), form)
    if config.gated and inputs.gate is not None:
        opened = _sigmoid(_linear(x, inputs.gate.astype(np.float64), form), form)
        output = _product(output, opened, form)
    return Interval(output.exact - output.error, output.exact + output.error)


def _linear(x: _Value, matrix: Floats, form: FloatFormat) -> _Value:
    """A matrix product: the input's error, n roundings in float32, one store."""
    n = matrix.shape[1]
    gamma = n * FLOAT32.unit_roundoff / (1.0 - n * FLOAT32.unit_roundoff)
    exact = x.exact @ matrix.T
    reach = (np.abs(x.exact) + x.error) @ np.abs(matrix).T
    carried = np.broadcast_to(x.error, x.exact.shape) @ np.abs(matrix).T
    return _stored(exact, carried + gamma * reach + n * FLOAT32.tiny, form)


def _product(a: _Value, b: _Value, form: FloatFormat) -> _Value:
    error = np.abs(a.exact) * b.error + np.abs(b.exact) * a.error + a.error * b.error
    return _stored(a.exact * b.exact, error, form)


def _sigmoid(z: _Value, form: FloatFormat) -> _Value:
    """A sigmoid, whose slope is at most 1/4: an exponential, a sum, a quotient."""
    value = sigmoid(z.exact)
    slack = EXPONENT * FLOAT32.unit_roundoff * (np.abs(z.exact) + z.error)
    roundings = (elementary(form) + division(form) + ROUNDING) * form.unit_roundoff
    return _stored(value, 0.25 * (z.error + slack) + roundings * value, form)


def _stored(exact: Floats, error: Floats, form: FloatFormat) -> _Value:
    """Round once to ``form``; where a value may pass its largest number, anything may come."""
    stored = error + form.unit_roundoff * (np.abs(exact) + error) + underflow(form)
    past = ~(np.abs(exact) + error <= form.largest)
    return _Value(exact, np.where(past, np.inf, stored))

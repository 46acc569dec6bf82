"""Balls of activations: what honest code, eager or fused, makes of them (docs/spec/judging.md)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from moe_routing.conformance.judge.balls import (
    UNIT,
    Ball,
    add,
    known,
    monotone,
    mul,
    rounded,
    sigmoid,
    times,
)
from moe_routing.conformance.judge.intervals import ELEMENTARY, store_unit
from moe_routing.conformance.judge.quotients import EXPONENT
from moe_routing.reference import ExpertsConfig
from moe_routing.reference.activations import CLAMPED, TANH_CUBIC, TANH_SLOPE
from moe_routing.reference.formats import FloatFormat, Floats

_POLYNOMIAL = 7
"""Roundings of ``c (x + b x^3)``: two products for the cube, two with constants, the constants
themselves, and the sum; all parts have one sign. Four of these results may be stored."""
_POLYNOMIAL_STORES = 4

_ERF = 12
"""Units of roundoff in one erf. CUDA and SLEEF document 2 ulp, but torch's GELU on CPUs has a
polynomial of its own: over every third float32 from 2^-6 to 16 it errs by 11.3 units at most."""

_erf = np.frompyfunc(math.erf, 1, 1)
_ONE = Ball.exact(1.0)


def silu(x: Ball, form: FloatFormat) -> Ball:
    """Return ``x sigmoid(x)``, the sigmoid stored or not."""
    return mul(x, sigmoid(x, form), form)


def gelu(x: Ball, form: FloatFormat) -> Ball:
    """Return ``x/2 (1 + erf(x / sqrt(2)))``, an error of erf's being absolute where it is near -1.

    The slope of erf is at most that at the end of the ball that is nearest to 0.
    """
    z = times(x, math.sqrt(0.5), form)
    nearest = np.maximum(np.abs(z.mid) - z.rad, 0.0)
    slope = 2.0 / math.sqrt(math.pi) * np.exp(-nearest * nearest)
    value = np.asarray(_erf(z.mid), np.float64)
    return _half(x, rounded(known(value, _moved(slope, z.rad)), form, _ERF), form)


def gelu_tanh(x: Ball, form: FloatFormat) -> Ball:
    """Return ``x/2 (1 + tanh(y))`` or ``x sigmoid(2 y)``, y a polynomial of x."""
    reach = np.where(x.decided, x.reach, 0.0)
    y = TANH_SLOPE * (x.mid + TANH_CUBIC * x.mid**3)
    steep = TANH_SLOPE * (1.0 + 3.0 * TANH_CUBIC * reach**2)
    units = (_POLYNOMIAL + EXPONENT) * UNIT + _POLYNOMIAL_STORES * store_unit(form)
    d = steep * x.rad + units * TANH_SLOPE * (reach + TANH_CUBIC * reach**3)
    nearest = np.maximum(np.abs(y) - d, 0.0)
    slope = np.minimum(1.0, 4.0 * np.exp(-2.0 * nearest))
    return _half(x, rounded(known(np.tanh(y), _moved(slope, d)), form, ELEMENTARY), form)


def relu(x: Ball, form: FloatFormat) -> Ball:
    """Return x above 0 and else 0: nothing rounds."""
    return monotone(x, lambda values: np.maximum(values, 0.0))


PLAIN: dict[str, Callable[[Ball, FloatFormat], Ball]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu-tanh": gelu_tanh,
    "relu": relu,
}
"""The activations that look at one value."""


def activated(config: ExpertsConfig, gate: Ball | None, up: Ball, form: FloatFormat) -> Ball:
    """Return what comes between the products: each result may be stored."""
    if gate is None:
        return PLAIN[config.activation](up, form)
    if config.activation != CLAMPED:
        return mul(PLAIN[config.activation](gate, form), up, form)
    gate, up = _clamped(gate, -math.inf, config.limit, form), _both(up, config.limit, form)
    opened = mul(gate, sigmoid(times(gate, config.alpha, form), form), form)
    return mul(opened, add(up, _ONE, form), form)


def _both(x: Ball, limit: float, form: FloatFormat) -> Ball:
    return _clamped(x, -limit, limit, form)


def _clamped(x: Ball, low: float, high: float, form: FloatFormat) -> Ball:
    """Return x between two limits, which are off by what a store of them loses."""
    out = monotone(x, lambda values: np.clip(values, low, high))
    off = float(np.abs(form.round(high) - high))
    return out if off == 0.0 else Ball(out.mid, out.rad + off)


def _moved(slope: Floats, d: Floats) -> Floats:
    """Return the most that a function between -1 and 1 moves where its argument moves by d."""
    with np.errstate(invalid="ignore"):
        return np.minimum(slope * d, 2.0)


def _half(x: Ball, inner: Ball, form: FloatFormat) -> Ball:
    """Return ``x/2 (1 + inner)``; undecided where x is."""
    opened = add(_ONE, inner, form)
    return mul(Ball(x.mid / 2.0, x.rad / 2.0), opened, form)

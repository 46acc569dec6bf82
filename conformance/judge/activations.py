"""Balls of activations: what honest code, eager or fused, makes of them (docs/spec/judging.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

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

POLYNOMIAL = 7
"""Roundings of ``c (x + b x^3)``: two products for the cube, two with constants, the constants
themselves, and the sum; all parts have one sign. Four of these results may be stored."""
POLYNOMIAL_STORES = 4

_ERF = 12
"""Units of roundoff in one erf, of 1. CUDA and SLEEF document 2 ulp, but torch's GELU on CPUs has
polynomials of its own: of whole arrays one errs by 11.9 units at most (above 2), of the halves of
rows, as gate and up lie, another by 9.3 (near 0, where erf is small)."""

_erf = np.frompyfunc(math.erf, 1, 1)
_ONE = Ball.exact(1.0)


def silu(x: Ball, form: FloatFormat) -> Ball:
    """Return ``x sigmoid(x)``, the sigmoid stored or not."""
    return mul(x, sigmoid(x, form), form)


def gelu(x: Ball, form: FloatFormat) -> Ball:
    """Return ``x/2 (1 + erf(x / sqrt(2)))``, an error of erf's being absolute.

    The slope of erf is at most that at the end of the ball that is nearest to 0.
    """
    return _half(x, gelu_share(x, form), form)


def gelu_share(x: Ball, form: FloatFormat) -> Ball:
    """Return ``erf(x / sqrt(2))``, stored."""
    z = times(x, math.sqrt(0.5), form)
    nearest = np.maximum(np.abs(z.mid) - z.rad, 0.0)
    slope = 2.0 / math.sqrt(math.pi) * np.exp(-nearest * nearest)
    value = np.asarray(_erf(z.mid), np.float64)
    return rounded(known(value, _moved(slope, z.rad) + _ERF * UNIT), form)


def gelu_tanh(x: Ball, form: FloatFormat) -> Ball:
    """Return ``x/2 (1 + tanh(y))`` or ``x sigmoid(2 y)``, y a polynomial of x."""
    return _half(x, rounded(tanh_of_polynomial(x, form), form, ELEMENTARY), form)


def tanh_of_polynomial(x: Ball, form: FloatFormat) -> Ball:
    """Return the tanh of y, with the errors of y alone."""
    reach = np.where(x.decided, x.reach, 0.0)
    y = TANH_SLOPE * (x.mid + TANH_CUBIC * x.mid**3)
    steep = TANH_SLOPE * (1.0 + 3.0 * TANH_CUBIC * reach**2)
    units = (POLYNOMIAL + EXPONENT) * UNIT + POLYNOMIAL_STORES * store_unit(form)
    d = steep * x.rad + units * TANH_SLOPE * (reach + TANH_CUBIC * reach**3)
    nearest = np.maximum(np.abs(y) - d, 0.0)
    slope = np.minimum(1.0, 4.0 * np.exp(-2.0 * nearest))
    return known(np.tanh(y), _moved(slope, d))


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
    parts = clamped_parts(config, gate, up, form)
    return mul(parts.opened, parts.shifted, form)


@dataclass(frozen=True, eq=False)
class ClampedParts:
    """gpt-oss's activation: the clamped gate, what it opens, and the clamped up plus 1."""

    gate: Ball
    opened: Ball
    shifted: Ball


def clamped_parts(config: ExpertsConfig, gate: Ball, up: Ball, form: FloatFormat) -> ClampedParts:
    """Return the parts of gpt-oss's activation, each stored."""
    gate = _clamped(gate, -math.inf, config.limit, form)
    opened = mul(gate, sigmoid(times(gate, config.alpha, form), form), form)
    up = _clamped(up, -config.limit, config.limit, form)
    return ClampedParts(gate, opened, add(up, _ONE, form))


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

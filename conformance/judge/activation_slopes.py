"""Balls of activations on the way back: what honest code multiplies a gradient with.

Every way has two parts that may cancel, a share and what it moves by, and may multiply the gradient
into each: the radius is that of the parts. Derivations: docs/spec/judging.md, "Experts".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.activations import (
    POLYNOMIAL,
    POLYNOMIAL_STORES,
    gelu_share,
    tanh_of_polynomial,
)
from moe_routing.conformance.judge.balls import (
    UNIT,
    Ball,
    add,
    known,
    mul,
    rounded,
    sigmoid,
    times,
)
from moe_routing.conformance.judge.gradient_balls import of_parts, of_square
from moe_routing.conformance.judge.intervals import (
    DIVISION,
    ELEMENTARY,
    ROUNDING,
    store_unit,
)
from moe_routing.conformance.judge.quotients import EXPONENT
from moe_routing.reference.activations import TANH_CUBIC, TANH_SLOPE
from moe_routing.reference.formats import FloatFormat, Floats

_ONE = Ball.exact(1.0)


@dataclass(frozen=True, eq=False)
class Slope:
    """A slope as two parts that are added: ``share + moves``.

    ``large`` are the factors of ``moves`` that a gradient may be multiplied with first, before
    what makes the product small; ``root`` is the least sigmoid whose square may be one of them.
    """

    share: Ball
    moves: Ball
    large: Floats
    root: Floats | None = None


def silu(x: Ball, form: FloatFormat) -> Slope:
    """Return ``s + x s (1 - s)``, s the sigmoid; ``1 - s`` errs by units of 1."""
    s = sigmoid(x, form)
    moves = mul(x, mul(s, add(_ONE, -s, form), form), form)
    return Slope(s, moves, x.reach, np.maximum(s.mid - s.rad, 0.0))


def gelu(x: Ball, form: FloatFormat) -> Slope:
    """Return the share of a normal distribution below x, and x times its density."""
    half = Ball(np.asarray(0.5), np.asarray(0.0))
    share = mul(add(_ONE, gelu_share(x, form), form), half, form)
    return Slope(share, mul(x, _density(x, form), form), x.reach)


def _density(x: Ball, form: FloatFormat) -> Ball:
    """Return ``exp(-x^2 / 2) / sqrt(2 pi)``; the exponent may be stored."""
    half_square = 0.5 * x.mid * x.mid
    d = x.reach * x.rad + half_square * (EXPONENT * UNIT + 2.0 * store_unit(form))
    value = np.exp(-half_square) / math.sqrt(2.0 * math.pi)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.minimum(value * np.expm1(d), 1.0 / math.sqrt(2.0 * math.pi))
    moved = np.where(x.decided, moved, np.inf)
    return rounded(known(value, moved), form, ELEMENTARY + 2, 2)


def gelu_tanh(x: Ball, form: FloatFormat) -> Slope:
    """Return ``(1 + t) / 2 + x/2 (1 - t^2) y'``, or the same with the sigmoid of ``2 y``.

    A sigmoid s errs by units of itself, and ``4 s (1 - s)`` by twice the units of ``2 s - 1``.
    """
    t = rounded(tanh_of_polynomial(x, form), form, ELEMENTARY + 2 * (DIVISION + 1), 1)
    half = Ball(np.asarray(0.5), np.asarray(0.0))
    share = mul(add(_ONE, t, form), half, form)
    left = add(_ONE, -mul(t, t, form), form)
    square = x.reach**2
    rise = TANH_SLOPE * (1.0 + 3.0 * TANH_CUBIC * x.mid**2)
    moved = 3.0 * TANH_SLOPE * TANH_CUBIC * (square - x.mid**2)
    steep = rounded(known(rise, moved), form, POLYNOMIAL, POLYNOMIAL_STORES)
    moves = mul(mul(mul(x, half, form), left, form), steep, form)
    return Slope(share, moves, x.reach * np.maximum(steep.reach, 1.0))


def relu(x: Ball, form: FloatFormat) -> Slope:
    """Return 1 above 0 and 0 below; at 0, or where rounding may reach it, anything between."""
    none = np.zeros_like(x.mid)
    return Slope(within(x, 0.0, math.inf), Ball.exact(none), none)


def within(x: Ball, low: float, high: float, off: float = 0.0) -> Ball:
    """Return 1 where x is between two limits that err by ``off``, and 0 elsewhere.

    At a limit, where a function has a kink, any slope between those of its two sides is right.
    """
    with np.errstate(invalid="ignore"):
        least, most = x.mid - x.rad, x.mid + x.rad
        inside = (least > low + off) & (most < high - off)
        outside = (most < low - off) | (least > high + off)
    mid = np.where(inside, 1.0, np.where(outside, 0.0, 0.5))
    rad = np.where(x.decided, np.where(inside | outside, 0.0, 0.5), np.inf)
    return Ball(mid, rad)


def passed(a: Ball, mask: Ball) -> Ball:
    """Return what of ``a`` a mask lets through: nothing rounds."""
    with np.errstate(invalid="ignore"):
        rad = mask.mid * a.rad + mask.rad * a.reach
    return known(a.mid * mask.mid, rad)


SLOPES: dict[str, Callable[[Ball, FloatFormat], Slope]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu-tanh": gelu_tanh,
    "relu": relu,
}
"""The slopes of the activations that look at one value."""


def through(activation: str, at: Ball, x: Ball, form: FloatFormat) -> Ball:
    """Return the gradient ``at`` of an activation, carried to its argument ``x``.

    Either part of the slope may be multiplied with the gradient before they are added, and what
    underflows with the square of a reciprocal in it is multiplied by its inverse at the most.
    """
    slope = SLOPES[activation](x, form)
    if activation == "relu":
        return passed(at, slope.share)
    share, moves = mul(at, slope.share, form), mul(at, slope.moves, form)
    both = add(share, moves, form)
    rad = both.rad + of_parts(share.reach + moves.reach, form, ROUNDING)
    if slope.root is not None:
        large = np.maximum(at.reach, 1.0) * np.maximum(slope.large, 1.0)
        rad = rad + of_square(slope.root, large, moves.reach, form)
    overflows = ~(at.reach * np.maximum(slope.large, 1.0) <= form.largest / 4.0)
    return known(both.mid, np.where(overflows, np.inf, rad))


def through_opened(at: Ball, gate: Ball, alpha: float, form: FloatFormat) -> Ball:
    """Carry a gradient through ``g sigmoid(alpha g)``, which is ``silu(alpha g) / alpha``."""
    return through("silu", at, times(gate, alpha, form), form)

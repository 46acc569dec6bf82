"""Activations in float32, and what is certainly left of the radii of what they make.

Derivation: docs/spec/judging.md, "In float32".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.intervals import division, store_unit
from moe_routing.reference import ExpertsConfig
from moe_routing.reference.activations import CLAMPED, TANH_CUBIC, TANH_SLOPE
from moe_routing.reference.experts import Array
from moe_routing.reference.formats import FloatFormat, Floats

_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_SLOPE = 0.3275911
"""Abramowitz and Stegun 7.1.26: off by 1.5e-7 at most, of which the radius of erf permits five."""

_ONE = np.float32(1.0)


@dataclass(frozen=True, eq=False)
class Left:
    """Values in float32, ``[F, n]``, and of the first rows what is left of their radii.

    ``parts [S, n]`` are those of the values: a ball of so much around one lies in its ball.
    """

    values: Array
    parts: Array

    @property
    def some(self) -> Array:
        """The values of which it is known what is left."""
        return self.values[: len(self.parts)]

    def left(self) -> Array:
        """Return what is left, in numbers."""
        return np.where(self.parts > 0.0, self.parts * np.abs(self.some), np.float32(0.0))

    def plus(self, bias: Array, form: FloatFormat) -> Left:
        """Return the values with a bias ``[F]``, stored; they are overwritten."""
        left = self.left()
        values = np.add(self.values, bias[:, None], out=self.values)
        return stored(_of_numbers(values, left), form)

    def times(self, weight: Ball, form: FloatFormat) -> Left:
        """Return the values with weights ``[n]``, stored; they are overwritten."""
        scale = weight.mid.astype(np.float32)
        off = np.where(weight.mid == 0.0, 0.0, weight.rad / np.abs(weight.mid)).astype(np.float32)
        values = np.multiply(self.values, scale, out=self.values)
        return stored(Left(values, self.parts + off), form)


def stored(a: Left, form: FloatFormat) -> Left:
    """Return values after one more store in ``form``: it adds to a radius that is there."""
    s = store_unit(form)
    return Left(a.values, np.where(a.parts > 0.0, a.parts + np.float32(s), np.float32(0.0)))


def activated(config: ExpertsConfig, gate: Left | None, up: Left, form: FloatFormat) -> Left:
    """Return what comes between the products; ``up`` is overwritten."""
    if gate is None:
        return _plain(config.activation, up, form)
    if config.activation == CLAMPED:
        return _product(_opened(config, gate, form), _shifted(config, up, form), form)
    return _product(_plain(config.activation, gate, form), up, form)


def _of_numbers(values: Array, left: Array) -> Left:
    size = np.abs(values[: len(left)])
    return Left(values, np.divide(left, size, out=np.zeros_like(left), where=size > 0.0))


def _product(a: Left, b: Left, form: FloatFormat) -> Left:
    values = np.multiply(a.values, b.values, out=b.values)
    return stored(Left(values, a.parts + b.parts), form)


def _plain(name: str, x: Left, form: FloatFormat) -> Left:
    change, stores = _PLAIN[name]
    more = np.float32(stores(form) * store_unit(form))
    return Left(change(x.values), x.parts + more)


def _opened(config: ExpertsConfig, gate: Left, form: FloatFormat) -> Left:
    """Return gpt-oss's gate, clamped from above, times its sigmoid."""
    limit = np.float32(config.limit)
    room = np.maximum(_below(limit) - gate.some, np.float32(0.0))
    clamped = _of_numbers(np.minimum(gate.values, limit), np.minimum(gate.left(), room))
    opened = clamped.values / (_ONE + np.exp(np.float32(-config.alpha) * clamped.values))
    return Left(opened, clamped.parts + np.float32(_silu_stores(form) * store_unit(form)))


def _shifted(config: ExpertsConfig, up: Left, form: FloatFormat) -> Left:
    """Return gpt-oss's ``up``, clamped from both sides, plus 1."""
    limit = np.float32(config.limit)
    room = np.maximum(_below(limit) - np.abs(up.some), np.float32(0.0))
    clamped = np.clip(up.values, -limit, limit)
    return stored(_of_numbers(clamped + _ONE, np.minimum(up.left(), room)), form)


def _below(limit: np.float32) -> np.float32:
    """Return what is no greater than the limit before it was rounded to float32."""
    return np.float32(np.nextafter(limit, np.float32(0.0)))


def _silu_stores(form: FloatFormat) -> int:
    """Return the stores in a product with a sigmoid: its quotient's, its own, the product's."""
    return division(form) + 2


def _silu(x: Array) -> Array:
    divisor = np.exp(-x)
    divisor += _ONE
    return np.divide(x, divisor, out=divisor)


def _gelu(x: Array) -> Array:
    z = x * math.sqrt(0.5)
    return (np.float32(0.5) * x * (1.0 + _erf(z.astype(np.float64)))).astype(np.float32)


def _erf(z: Floats) -> Floats:
    size = np.abs(z)
    t = 1.0 / (1.0 + _ERF_SLOPE * size)
    total = np.zeros_like(t)
    for factor in reversed(_ERF):
        total = (total + factor) * t
    found: Floats = np.copysign(1.0 - total * np.exp(-size * size), z)
    return found


def _gelu_tanh(x: Array) -> Array:
    y = np.float32(TANH_SLOPE) * (x + np.float32(TANH_CUBIC) * (x * x * x))
    found: Array = np.multiply(np.float32(0.5) * x, _ONE + np.tanh(y))
    return found


_PLAIN: dict[str, tuple[Callable[[Array], Array], Callable[[FloatFormat], int]]] = {
    "silu": (_silu, _silu_stores),
    "gelu": (_gelu, lambda form: 2),
    "gelu-tanh": (_gelu_tanh, lambda form: 2),
    "relu": (lambda x: np.maximum(x, np.float32(0.0)), lambda form: 0),
}
"""Activations of one value in float32, and how often a longest form of each is stored."""

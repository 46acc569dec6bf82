"""Balls of what the gradient of the logits is multiplied with: gate, hidden states, input norm.

From the backend's own gradient of the logits, where it gives one, only products and sums are
left to round: then these bounds are as narrow as those of the logits. Derivations:
docs/spec/judging.md, "Gradients".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.ball_sums import Matrix, summed, total
from moe_routing.conformance.judge.balls import UNIT, Ball, add, rounded, settled
from moe_routing.conformance.judge.certain_norms import NormedGate, least_proportion
from moe_routing.conformance.judge.gradient_balls import (
    added,
    constant,
    of_parts,
    times,
    turned,
    undecided,
    wider,
    within,
)
from moe_routing.conformance.judge.intervals import DIVISION, ELEMENTARY, ROUNDING, store_unit
from moe_routing.conformance.judge.least import certainly_within
from moe_routing.conformance.judge.logits import format_of
from moe_routing.conformance.judge.relative_products import within_relative
from moe_routing.conformance.judge.single_products import SingleMatrix
from moe_routing.implementations import Numerics
from moe_routing.reference import RmsNorm, RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, FloatFormat, Floats, Numbers

PRODUCTS = ("hidden", "gate_weight", "gate_delta", "gate_bias", "hidden_scale")
"""The gradients that are a product or a sum of that of the logits."""

_LARGE = 2.0**20
"""Numbers next to which what underflows is not seen."""

_OFTEN = 2**40  # stores: as many as there are summands


@dataclass(frozen=True, eq=False)
class GateGradients:
    """The permitted gradients of the gate's side of a call, from those of its logits."""

    config: RouterConfig
    inputs: RouterInputs
    numerics: Numerics
    at_logits: Ball

    def stored(self, name: str) -> FloatFormat:
        """Return the format that a gradient is returned in at the least: that of its input."""
        return INPUT_FORMATS[self.inputs.dtype_of(name)]

    @property
    def form(self) -> FloatFormat:
        """The least precise format on the way between hidden states and logits."""
        return format_of(self.config.logits_dtype, self.inputs)

    def of(self, name: str) -> Ball:
        """Return the permitted gradient of an input by its name."""
        made = {
            "hidden": self.hidden,
            "gate_weight": self.gate_weight,
            "gate_delta": self.gate_weight,
            "gate_bias": self.gate_bias,
            "hidden_scale": self.hidden_scale,
        }
        with np.errstate(all="ignore"):
            return within(made[name](), self.stored(name))

    def certainly(self, name: str, given: Numbers) -> bool:
        """Whether one of ``PRODUCTS`` is right for certain: False says nothing.

        Nothing may leave the range of its format: then some of it is decided.
        """
        inputs, at, norm = self.inputs, self.at_logits, self.config.input_norm
        if inputs.gate_weight is None:
            return False
        if norm is not None and name != "gate_bias":
            normed = NormedGate(norm, inputs, at, self.form)
            of = "gate_weight" if name == "gate_delta" else name
            with np.errstate(all="ignore"):
                return bool(getattr(normed, of)(given, self.stored(name)))
        form = self.stored(name)
        if name == "gate_bias":
            return _certainly_sums(given, at, form)
        rows: npt.NDArray[np.float32] = inputs.gate_weight.T
        if name != "hidden":
            rows, at = inputs.hidden.T, turned(at)
        elif inputs.gate_delta is not None and self._is_of_both(given):
            return True
        elif inputs.gate_delta is not None:  # by one product's radius, and the other's centre
            rows, other = sorted((rows, inputs.gate_delta.T), key=_greatest, reverse=True)
            if not (_stays(at.mid, other, form) and FLOAT32.represents(given).all()):
                return False  # float64 loses less than float32 can tell apart
            given = given - at.mid @ other.T.astype(np.float64)
        if not (_stays(at.mid, rows, form) and _greatest(at.mid) <= self.form.largest / 2.0):
            return False
        with np.errstate(all="ignore"):
            if at.rad.any():
                return _certainly_of_balls(given, at, rows, form)
            if SingleMatrix(rows, form).holds(given, at.mid):
                return True
            return certainly_within(given, at.mid, Matrix.of(rows), form)

    def _is_of_both(self, given: Numbers) -> bool:
        """Whether the gradient of the hidden states is right, through a gate and its delta."""
        gate, delta, at = self.inputs.gate_weight, self.inputs.gate_delta, self.at_logits
        assert gate is not None
        assert delta is not None
        form = self.stored("hidden")
        stays = _stays(at.mid, gate.T, form) and _stays(at.mid, delta.T, form)
        both = SingleMatrix(gate.T, form, delta.T)
        return stays and not at.rad.any() and both.holds(given, at.mid)

    def gate_weight(self) -> Ball:
        """Sum the products with the hidden states over all tokens."""
        back = Ball(self.at_logits.mid.T, self.at_logits.rad.T)
        seen = self._seen()
        return settled(
            self._multiplied(back, Ball(seen.mid.T, seen.rad.T)), self.stored("gate_weight"), 0
        )

    def gate_bias(self) -> Ball:
        """Sum over all tokens."""
        return sum_over_tokens(self.at_logits, self.stored("gate_bias"))

    def hidden(self) -> Ball:
        """Multiply by the gate, and go back through the input norm."""
        at = self._at_seen()
        norm = self.config.input_norm
        return at if norm is None else settled(self._normalised(norm, at), self.stored("hidden"), 0)

    def hidden_scale(self) -> Ball:
        """Sum the products with the hidden states before their scale."""
        norm = self.config.input_norm
        assert norm is not None
        products = self._by_root(self._at_seen(), self._unit(norm))
        return sum_over_tokens(products, self.stored("hidden_scale"))

    def _by_root(self, at: Ball, other: Ball) -> Ball:
        """Multiply by ``1 / sqrt(H)``, either factor first: one of them may underflow."""
        root, form = constant(self.inputs.hidden_size**-0.5, self.form), self.form
        return wider(
            times(at, times(other, root, form), form, 2 * ROUNDING),
            times(times(at, root, form), other, form, 2 * ROUNDING),
        )

    def _seen(self) -> Ball:
        """Return what the gate multiplies."""
        norm = self.config.input_norm
        if norm is None:
            return Ball.exact(self.inputs.hidden)
        return times(self._unit(norm), self._scale(), self.form, 2 * ROUNDING)

    def _scale(self) -> Ball:
        scale = self.inputs.hidden_scale
        root = constant(self.inputs.hidden_size**-0.5, self.form)
        return root if scale is None else times(Ball.exact(scale[None]), root, self.form)

    def _unit(self, norm: RmsNorm) -> Ball:
        """Return the hidden states divided by the root of their mean square."""
        root = self._root(norm)
        hidden = self.inputs.hidden.astype(np.float64)
        error = root.rad / root.mid
        unit = hidden / root.mid
        return rounded(Ball(unit, error * np.abs(unit)), self.form, DIVISION)

    def _root(self, norm: RmsNorm) -> Ball:
        """Return the root ``[T, 1]``: (H + 2) / 2 roundings of the mean square, and its own."""
        hidden = self.inputs.hidden.astype(np.float64)
        squares = np.square(hidden).sum(axis=1, keepdims=True)
        root = np.sqrt(squares / self.inputs.hidden_size + norm.eps)
        roundings = (self.inputs.hidden_size + 2) / 2 + ELEMENTARY
        ball = Ball(root, np.expm1(roundings * UNIT) * root)
        return undecided(ball, ~(squares <= FLOAT32.largest))

    def _normalised(self, norm: RmsNorm, at: Ball) -> Ball:
        """Go back through the norm: ``(g - u mean(g u)) / root`` with ``u`` the unit states."""
        form, unit, root = self.form, self._unit(norm), self._root(norm)
        scale = self.inputs.hidden_scale
        one = np.ones((1, 1)) if scale is None else scale[None]
        at_unit = self._by_root(at, Ball.exact(one))
        total_ = added(times(at_unit, unit, form), form)
        size = self.inputs.hidden_size
        mean = rounded(Ball(total_.mid / size, total_.rad / size), form, DIVISION)
        through = times(unit, mean, form)
        rest = Ball(at_unit.mid - through.mid, at_unit.rad + through.rad)
        # the root's third power, which some code multiplies the second part by, is two products
        parts = of_parts(at_unit.reach + through.reach, form, 6 * ROUNDING)
        reciprocal = rounded(Ball(1.0 / root.mid, root.rad / root.mid**2), form, DIVISION)
        return times(Ball(rest.mid, rest.rad + parts), reciprocal, form)

    def _at_seen(self) -> Ball:
        """Return the gradient of what the gate multiplies: each product, and their sum, stored."""
        gate, delta = self.inputs.gate_weight, self.inputs.gate_delta
        form = self.form if self.config.input_norm is not None else self.stored("hidden")
        found = self._through(Ball.exact(gate), form)
        if delta is None:
            return found
        other = self._through(Ball.exact(delta), form)
        apart = undecided(add(found, other, form), ~(found.decided & other.decided))
        # LOG-2: the delta may have been added to the gate before, in float32
        merged = settled(Ball.exact(gate.astype(np.float64) + delta), FLOAT32)
        return wider(apart, self._through(merged, form))

    def _through(self, matrix: Ball, form: FloatFormat) -> Ball:
        """Multiply by a matrix ``[E, H]``, and store."""
        back = self._multiplied(self.at_logits, turned(matrix))
        return within(settled(back, form, 0), form)

    def _multiplied(self, a: Ball, rows: Ball) -> Ball:
        """Return ``a @ rows.T``, summed in float32 in any order; exact where no order rounds."""
        products = "tf32" if self.numerics.multiply == "tf32" else "float32"
        found = summed(a, Matrix.of(rows.mid), products=products)
        if not rows.rad.any():
            return found
        radii = np.broadcast_to(rows.rad, rows.mid.shape)
        grown = float(np.exp(radii.shape[-1] * UNIT))
        return Ball(found.mid, found.rad + grown * (a.reach @ radii.T))


def _certainly_sums(given: Numbers, at: Ball, form: FloatFormat) -> bool:
    """Whether a sum over tokens is right: within what its summands are off by."""
    if not at.rad.any() or not len(at.mid) * _greatest(at.mid) <= form.largest / 8.0:
        return False
    off = np.abs(given - at.mid.sum(axis=0))
    return bool((off <= (1.0 - 2.0**-10) * at.rad.sum(axis=0)).all())


def _certainly_of_balls(
    given: Numbers, a: Ball, rows: npt.NDArray[np.float32], form: FloatFormat
) -> bool:
    """Whether a product of balls with a matrix is right: each in proportion to the least."""
    units = least_proportion(a)
    if not units or max(_greatest(a.mid), _greatest(rows)) > _LARGE:
        return False
    point = a.mid.astype(np.float32) @ rows.T
    sizes = (a.rad / units).astype(np.float32)
    return within_relative(given, point, sizes, rows, units, store_unit(form))


def _stays(a: Floats, rows: npt.NDArray[np.float32], form: FloatFormat) -> bool:
    """Whether no sum of products is near the end of a range."""
    return bool(a.shape[1] * _greatest(a) * _greatest(rows) <= form.largest / 8.0)


def _greatest(values: npt.NDArray[np.floating]) -> float:
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))


def sum_over_tokens(a: Ball, form: FloatFormat, *, running: bool = False) -> Ball:
    """Return the sum of each column ``[N]`` in float32, in any order, stored in ``form``.

    With ``running`` partial sums may be stored as well, one after the other: a gradient that is
    scattered is added to in the format of its own array.
    """
    if running:
        return settled(total(a, form, axis=0, stores=_OFTEN), form, 0)
    return settled(total(a, FLOAT32, axis=0), form, 0)

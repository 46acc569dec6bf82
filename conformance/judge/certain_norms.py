"""Gradients through an input norm that certainly are permitted: points, a part of each radius.

The root of a mean square is off by half a unit a column, and all that is made of it in proportion.
What float32 loses here is what the way back through the norm may lose as well, and is left out.
Derivations: docs/spec/judging.md, "What certainly lies within".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.balls import UNIT, Ball
from moe_routing.conformance.judge.intervals import ELEMENTARY, store_unit
from moe_routing.conformance.judge.relative_products import within_relative
from moe_routing.reference import RmsNorm, RouterInputs
from moe_routing.reference.formats import INPUT_FORMATS, FloatFormat, Floats, Numbers

Array = npt.NDArray[Any]

_KEPT = 7.0 / 8.0
"""What is used of a radius; the rest is more than a mean in float32 loses."""

_STORED = 1.0 - 2.0**-10
"""The same of a store."""

_BLOCK = 2**18
"""About how many numbers are looked at together: a cache holds some of these."""

_RANGE = 2.0**-6
"""The part of a format's range that nothing on the way may leave."""

_LARGE, _LEAST = 2.0**20, 2.0**-30
"""Numbers between which nothing underflows that is seen."""


@dataclass(frozen=True, eq=False)
class NormedGate:
    """A gate behind an input norm; ``at`` is the gradient of its logits.

    ``form`` is the least precise format on the way. All is float32, but for the root.
    """

    norm: RmsNorm
    inputs: RouterInputs
    at: Ball
    form: FloatFormat

    @cached_property
    def root(self) -> Floats:
        """The root of the mean square, ``[T, 1]``."""
        hidden = self.inputs.hidden
        squares = np.einsum("ij,ij->i", hidden, hidden, dtype=np.float64)[:, None]
        made: Floats = np.sqrt(squares / self.inputs.hidden_size + self.norm.eps)
        return made

    @property
    def factor(self) -> Array:
        """What unit hidden states are multiplied with, ``[1, H]`` or a number."""
        constant = np.float32(self.inputs.hidden_size**-0.5)
        scale = self.inputs.hidden_scale
        return np.asarray(constant if scale is None else scale[None] * constant)

    @property
    def units(self) -> float:
        """What a unit hidden state is off by in proportion, at the least."""
        return ((self.inputs.hidden_size + 2) / 2 + ELEMENTARY) * UNIT + store_unit(self.form)

    @cached_property
    def calm(self) -> bool:
        """Whether no number that comes in is near the end of a range, nor what is made of it."""
        inputs, smallest = self.inputs, float(self.root.min(initial=1.0))
        gates = [each for each in (inputs.gate_weight, inputs.gate_delta) if each is not None]
        matrix, at, factor = sum(_most(g) for g in gates), _most(self.at.mid), _most(self.factor)
        many = inputs.hidden_size * max(inputs.hidden_size, inputs.num_tokens)
        sums = at * max(matrix, 1.0) * self.at.mid.shape[1] * many * max(factor, 1.0)
        range_ = _RANGE * min(self.form.largest, INPUT_FORMATS[inputs.dtype].largest)
        return (
            max(_most(inputs.hidden), matrix, at, factor) <= _LARGE
            and smallest >= max(_LEAST, 1.0 / range_)
            and sums * max(1.0, 1.0 / smallest) <= range_
        )

    def gate_weight(self, given: Numbers, form: FloatFormat) -> bool:
        """Whether the gradient of the gate is right: a sum of products with normed states."""
        if not self.calm:
            return False
        a = self.at.mid.T.astype(np.float32)
        seen = (self.inputs.hidden * (1.0 / self.root).astype(np.float32)) * self.factor
        units = self.units + least_proportion(self.at)
        return within_relative(given, a @ seen, np.abs(a), seen.T, units, store_unit(form))

    def hidden(self, given: Numbers, form: FloatFormat) -> bool:
        """Whether the gradient of the hidden states is right, back through the norm."""
        return self.calm and all(
            self._near(given[rows], rows, back, unit, store_unit(form))
            for rows, back, unit in self._blocks()
        )

    def hidden_scale(self, given: Numbers, form: FloatFormat) -> bool:
        """Whether the gradient of the scale is right: a sum of products over all tokens."""
        if not self.calm:
            return False
        point, size = (np.zeros(self.inputs.hidden_size) for _ in range(2))
        for _, back, unit in self._blocks():
            products = back * unit
            point += products.sum(axis=0, dtype=np.float64)
            size += np.abs(products, out=products).sum(axis=0, dtype=np.float64)
        constant = self.inputs.hidden_size**-0.5
        stored = _STORED * store_unit(form) * np.abs(point)
        most = constant * (_KEPT * self.units * size + stored)
        return bool((np.abs(given - constant * point) <= most).all())

    def _blocks(self) -> Iterator[tuple[slice, Array, Array]]:
        """Yield rows, the gradient of what the gate multiplies, and unit hidden states."""
        reciprocal = (1.0 / self.root).astype(np.float32)
        gate, delta = self.inputs.gate_weight, self.inputs.gate_delta
        step = max(1, _BLOCK // self.inputs.hidden_size)
        for first in range(0, len(reciprocal), step):
            rows = slice(first, first + step)
            at = self.at.mid[rows].astype(np.float32)
            back = at @ gate if delta is None else at @ gate + at @ delta
            yield rows, back, self.inputs.hidden[rows] * reciprocal[rows]

    def _near(self, given: Numbers, rows: slice, back: Array, unit: Array, store: float) -> bool:
        size = self.inputs.hidden_size
        back *= self.factor
        products = back * unit
        mean = products.sum(axis=1, dtype=np.float64)[:, None] / size
        shared = np.abs(products, out=products).sum(axis=1, dtype=np.float64)[:, None] / size
        reciprocal = (1.0 / self.root[rows]).astype(np.float32)
        back -= unit * mean.astype(np.float32)
        back *= reciprocal
        off = np.abs(given - back)
        near = np.abs(unit, out=unit)
        near *= (shared * reciprocal).astype(np.float32)
        np.abs(back, out=back)
        near += back
        near *= np.float32(_KEPT * self.units)
        near += np.float32(_STORED * store) * back
        return bool((off <= near).all()) or bool((off <= near + self._carried(rows)).all())

    def _carried(self, rows: slice) -> Array:
        """Return what the gradient of the logits is off by, carried back: a part of each radius."""
        if not self.at.rad.any():
            return np.zeros((1, 1), dtype=np.float32)
        size = np.abs(self.inputs.gate_weight)
        rad = (_KEPT * self.at.rad[rows] / self.root[rows]).astype(np.float32)
        made: Array = (rad @ size) * np.abs(self.factor)
        return made


def least_proportion(a: Ball) -> float:
    """Return what each number of a ball is off by in proportion, at the least; of none, 0."""
    if not a.rad.any():
        return 0.0
    size = np.abs(a.mid)
    found = np.divide(a.rad, size, out=np.full(size.shape, np.inf), where=size > 0.0)
    least = float(found.min(initial=np.inf))
    return least if np.isfinite(least) else 0.0


def _most(values: Array) -> float:
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))

"""Gradients of one expert as points, and what these are off by in proportion, at the least.

Derivations: docs/spec/judging.md, "What certainly lies within".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge.balls import UNIT
from moe_routing.conformance.judge.least import Array, is_inexact
from moe_routing.reference.activation_slopes import SLOPES
from moe_routing.reference.activations import PLAIN
from moe_routing.reference.formats import Floats, Numbers
from moe_routing.reference.scores import sigmoid

_LARGE = 2.0**20
"""Numbers next to which what underflows is not seen."""

KEPT = 1.0 - 2.0**-4
"""What is used of a radius; the rest is more than float32 loses in a point of small parts."""

_STORES = {"silu": (5, 5, 6), "relu": (1, 1, 1)}
_OTHER_STORES = (2, 2, 3)
"""Stores on the way to what goes into the last product, and to the gradients of up and of gate.

A sigmoid is three of them. Each store of what is off already is off by its own unit.
"""


@dataclass(frozen=True, eq=False)
class ExpertPoints:
    """The routes of one expert, gated, its weight on the output: ``[n, H]`` and ``[n, F]``."""

    activation: str
    x: Array
    weight: Floats
    at: Floats
    gate_matrix: Array
    up_matrix: Array
    down_matrix: Array
    store: float

    @cached_property
    def gate(self) -> Floats:
        """The first product with the gate's matrix."""
        return self._product(self.x, self.gate_matrix.T)

    @cached_property
    def up(self) -> Floats:
        """The first product with the other matrix."""
        return self._product(self.x, self.up_matrix.T)

    @cached_property
    def back(self) -> Floats:
        """The cotangent through the last product, without the weight."""
        return self._product(self.at, self.down_matrix)

    def _product(self, a: Array, matrix: Array) -> Floats:
        """Return a first product; in 16 bits one that is summed in float32, as it may be."""
        form = np.float32 if self.store else np.float64
        product = a.astype(form, copy=False) @ matrix.astype(form, copy=False)
        return np.asarray(product, dtype=np.float64)

    @cached_property
    def inner(self) -> Floats:
        """What goes into the last product."""
        return PLAIN[self.activation](self.gate) * self.up

    @cached_property
    def at_firsts(self) -> tuple[Floats, Floats]:
        """The gradients of the first products: of the gate's, and of the other."""
        inner = self.back * self.weight
        at_gate = inner * self.up * SLOPES[self.activation](self.gate)
        return at_gate, inner * PLAIN[self.activation](self.gate)

    @cached_property
    def units(self) -> tuple[float, float]:
        """What is off in proportion: in the first products, and in the cotangent's if it rounds.

        Of 16 bits it is the store alone: the products are summed in float32 here.
        """
        if self.store:
            return self.store, self.store * is_inexact(self.at, self.down_matrix.T, self.back)
        x, at = _least_count(self.x), _least_count(self.at)
        first = min(x, _least_count(self.gate_matrix), _least_count(self.up_matrix))
        last = min(at, _least_count(self.down_matrix.T))
        rounds = is_inexact(self.at, self.down_matrix.T, self.back)
        return first * UNIT, last * UNIT * rounds

    @property
    def stores(self) -> tuple[int, int, int]:
        """How many stores there are on each of three ways."""
        return _STORES.get(self.activation, _OTHER_STORES)

    def rounds(self) -> bool:
        """Whether all of the first products are off by that: none of them is exact."""
        x = self.x.astype(np.float64)
        return is_inexact(x, self.gate_matrix, self.gate) and is_inexact(x, self.up_matrix, self.up)

    def is_calm(self, largest: float) -> bool:
        """Whether no number is near the end of the range: then all is decided."""
        at_gate, at_up = self.at_firsts
        made = (self.gate, self.up, self.inner, self.back, at_gate, at_up, self.back * self.up)
        most = max(_most(each) for each in made)
        sums = self.x.shape[1] * max(_most(self.x), _most(self.at))
        matrices = max(_most(self.gate_matrix), _most(self.up_matrix), _most(self.down_matrix))
        given = max(_most(self.x), _most(self.at), _most(self.weight), matrices)
        in_range = max(most * max(most, 1.0), sums * matrices) <= largest / 2.0**4
        return bool(in_range and given <= _LARGE)

    @cached_property
    def slope_size(self) -> Floats:
        """The magnitudes of the parts of the slope, which errors are in proportion to."""
        if self.activation != "silu":
            return np.abs(SLOPES[self.activation](self.gate))
        share = sigmoid(self.gate)
        return share + np.abs(self.gate) * share * sigmoid(-self.gate)

    @cached_property
    def sizes(self) -> tuple[Array, Array]:
        """At least the magnitudes of ``at_firsts``, in float32: what these are off in units of."""
        at_gate = np.abs(self.back * self.weight * self.up) * self.slope_size
        return at_gate.astype(np.float32), np.abs(self.at_firsts[1]).astype(np.float32)

    def matrices(self) -> Iterator[tuple[str, Array, Array, Array, float]]:
        """Yield the products ``a @ rows.T`` that a matrix's gradient is, and what a is off by.

        That is so many units of given sizes, which are at least the magnitudes of a.
        """
        first, last = self.units
        of_inner, of_up, of_gate = (n * self.store for n in self.stores)
        inner, at = self.inner.astype(np.float32), (self.at * self.weight).astype(np.float32)
        both = [each.astype(np.float32) for each in self.at_firsts]
        yield "down_weight", at.T, inner.T, at.T, 2.0 * first + of_inner
        yield "gate_weight", both[0].T, self.x.T, self.sizes[0].T, last + first + of_gate
        yield "up_weight", both[1].T, self.x.T, self.sizes[1].T, last + first + of_up

    @cached_property
    def at_x(self) -> tuple[Array, Array]:
        """What the gradient of the hidden states is the product of, in float32: ``a, rows``."""
        a = np.concatenate(self.at_firsts, axis=1).astype(np.float32)
        return a, np.concatenate([self.gate_matrix, self.up_matrix]).T

    def has_weights(self, given: Numbers) -> bool:
        """Whether the gradients of the weights are certainly right."""
        products = self.back * self.inner
        point, size = products.sum(axis=1), np.abs(products).sum(axis=1)
        units = 2.0 * self.units[0] + self.units[1] + self.stores[0] * self.store
        allowed = KEPT * (units * size + self.store * np.abs(point))
        return bool((np.abs(given - point) <= allowed).all())


def _most(values: Array) -> float:
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))


def _least_count(rows: Array) -> int:
    """Return how many numbers of each row are not 0, at the least."""
    if np.count_nonzero(rows) == rows.size:
        return int(rows.shape[1])
    return int(np.count_nonzero(rows, axis=1).min(initial=rows.shape[1]))

"""What experts answer in float32, and what is certainly left of each radius.

Float32 is honest, so that its answers lie in their balls. How far inside says a lower bound,
made of the first numbers of an expert's inner row (docs/spec/judging.md, "In float32").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.activations_float32 import Left, activated
from moe_routing.conformance.judge.ball_sums import bits_of
from moe_routing.conformance.judge.balls import UNIT, Ball
from moe_routing.conformance.judge.intervals import store_unit
from moe_routing.reference import ExpertsConfig, ExpertsInputs
from moe_routing.reference.experts import Array
from moe_routing.reference.formats import FLOAT32, Bools, FloatFormat, Ids

_EVERY, _FEWER = 16, 5
"""Of so many numbers of an expert's inner row one is asked for its radius; in 16 bits, where few
slots are added up and stored, of so many for each slot."""

_PART, _PARTS = 256, 4
"""How many products a part of a sum has at most, and how many parts a sum has at least."""

_HEAD = 16
"""The first numbers of a row that say whether its sums may be exact."""

_STEPS = 32
"""More roundings than a lower bound meets on its way, those of its sums aside."""


@dataclass(frozen=True, eq=False)
class Single:
    """One expert of a call in float32, on columns ``[..., n]``, which BLAS multiplies faster.

    Of each column, ``terms [n]`` counts the numbers of its hidden state that are not 0, and
    ``slots [n]`` those of its token whose weight is not 0.
    """

    config: ExpertsConfig
    inputs: ExpertsInputs
    form: FloatFormat
    expert: int
    terms: Ids
    slots: Ids

    def weighted(self, x: Array, weight: Ball) -> tuple[Array, Array] | None:
        """Return what the expert adds for ``x [n, H]``, and what is left of its radii, ``[H, n]``.

        None where too many of them may be exact, so that nothing is known of their radii.
        """
        early, scale = self.config.weight_on == "input", weight.mid.astype(np.float32)
        x = x * scale[:, None] if early else x
        up = self._linear(x, self.inputs.up_weight, self.inputs.up_bias)
        if np.count_nonzero((up.parts > 0.0) | (up.some == 0.0)) * 2 < up.parts.size:
            return None
        gate = None
        if (matrix := self.inputs.gate_weight) is not None:
            gate = self._linear(x, matrix, self.inputs.gate_bias)
        made = activated(self.config, gate, up, self.form)
        mid, low = self._last(made if early else made.times(weight, self.form))
        if (bias := self.inputs.down_bias) is not None:
            mid += bias[self.expert][:, None] * (1.0 if early else scale)
        return self._added(mid, low, scale)

    def _added(self, mid: Array, low: Array, scale: Array) -> tuple[Array, Array] | None:
        """Return what is left after the stores of a route's answer and of the sum over slots."""
        if not (s := store_unit(self.form)):
            return mid, low
        if not (low.min(initial=1.0) > 0.0 or (low.all(axis=0) | (scale == 0.0)).all()):
            return None
        stores = np.abs(mid)
        stores *= (self.slots * s).astype(np.float32)
        low += stores
        return mid, low

    def _linear(self, x: Array, weight: Array, bias: Array | None) -> Left:
        """Return ``weight @ x.T`` with its bias."""
        own = weight[self.expert]
        parts = 1 if store_unit(self.form) else max(_PARTS, -(-own.shape[1] // _PART))
        values, rounds = _product(own, x, parts)
        made = Left(values, self._parts(x, own[: self._count], values, rounds))
        return made if bias is None else made.plus(bias[self.expert], self.form)

    @property
    def _count(self) -> int:
        """How many numbers of an inner row are asked for their radius."""
        every = min(_EVERY, _FEWER * self.inputs.top_k) if store_unit(self.form) else _EVERY
        return -(-self.inputs.width // every)

    def _parts(self, x: Array, own: Array, sums: Array, rounds: int) -> Array:
        """Return what is left of the radii of sums that have rounded ``rounds`` times.

        In 16 bits that is one store, in float32 the roundings that these sums have not had.
        """
        some = sums[: len(own)]
        if s := store_unit(self.form):
            return np.where(_beyond(some, self.form), np.float32(s), np.float32(0.0))
        few = np.minimum(self.terms, np.count_nonzero(own, axis=1)[:, None]) - rounds
        left = np.maximum(few, 0) * (UNIT * math.exp(-rounds * UNIT))
        return np.where(_rounded(x, own, some, rounds), left, 0.0).astype(np.float32)

    def _last(self, inner: Left) -> tuple[Array, Array]:
        """Return the last product, and what its operands leave of its radii."""
        own, left = self.inputs.down_weight[self.expert], inner.left()
        mid: Array = own @ inner.values
        low: Array = np.abs(own[:, : len(left)]) @ left
        return mid, low


def certain(low: Array, inputs: ExpertsInputs) -> Array:
    """Return lower bounds less what they themselves have rounded; 0 where they may underflow."""
    units = (inputs.width / _FEWER + inputs.top_k + _STEPS) * UNIT
    low *= np.float32(math.exp(-units))
    low[~(low >= np.float32(FLOAT32.tiny / UNIT))] = 0.0
    return low


def _product(own: Array, x: Array, parts: int) -> tuple[Array, int]:
    """Return ``own @ x.T``, added up of several parts, and how often a product is rounded."""
    step = -(-own.shape[1] // parts)
    out: Array = own[:, :step] @ x[:, :step].T
    more = np.empty_like(out)
    for start in range(step, own.shape[1], step):
        some = slice(start, start + step)
        out += np.matmul(own[:, some], x[:, some].T, out=more)
    return out, step + parts - 1


def _beyond(sums: Array, form: FloatFormat) -> Bools:
    """Return where sums have bits that no number of a narrower format has."""
    cut = np.uint32(2 ** (FLOAT32.precision - form.precision) - 1)
    beyond: Bools = (sums.view(np.uint32) & cut) != 0
    return beyond


def _rounded(x: Array, own: Array, sums: Array, rounds: int) -> Bools:
    """Return where sums are certainly not exact: too large for what divides some of their terms."""
    bits = bits_of(own[:, :_HEAD])[:, None] * bits_of(x[:, :_HEAD])
    least = np.abs(sums) * math.exp(-rounds * UNIT)
    rounded: Bools = least > bits * 2.0**FLOAT32.precision
    return rounded

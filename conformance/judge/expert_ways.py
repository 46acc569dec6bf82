"""Balls along the way through an expert and back (docs/spec/judging.md, "Experts").

A routing weight on the output is applied to an expert's answer, or before the product that makes
it: both ways are honest, so that the greater radius of the two holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge.activation_slopes import (
    passed,
    through,
    through_opened,
    within,
)
from moe_routing.conformance.judge.activations import PLAIN, activated, clamped_parts
from moe_routing.conformance.judge.ball_sums import Matrix, summed, total
from moe_routing.conformance.judge.balls import UNIT, Ball, add, known, mul, settled
from moe_routing.conformance.judge.gradient_balls import turned, wider
from moe_routing.reference import ExpertsConfig, ExpertsInputs
from moe_routing.reference.activations import CLAMPED
from moe_routing.reference.experts import Array
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, Bools, FloatFormat, Floats, Ids

_OFTEN = 2**40  # stores: as many as there are summands
_TF32 = 2.0**-10


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """Several experts ``[B]`` of a call, each with rows of its own, ``[B, n, ...]``.

    ``hidden [B, n, H]`` and ``weight [B, n, 1]`` are those of the routes, ``at [B, n, H]`` is the
    cotangent of each token; rows that are not ``there`` hold zeros.
    """

    config: ExpertsConfig
    inputs: ExpertsInputs
    experts: Ids
    there: Bools
    products: str
    hidden: Ball
    weight: Ball
    at: Ball

    @property
    def form(self) -> FloatFormat:
        """The format in which results may be stored."""
        return INPUT_FORMATS[self.inputs.dtype]

    @property
    def late(self) -> bool:
        """Whether the weight is on the output."""
        return self.config.weight_on == "output"

    def of_experts(self) -> Iterator[tuple[str, Ball]]:
        """Yield the gradients of these experts' matrices and biases, by name."""
        yield "down_weight", self._of_last
        biased = [("down", self._at_answer)]
        for name, at in self._firsts.items():
            yield f"{name}_weight", self._stored(self._matmul(turned(at), turned(self._x)))
            biased.append((name, at))
        for name, at in biased:
            if getattr(self.inputs, f"{name}_bias") is not None:
                yield f"{name}_bias", self._stored(total(at, self.form, -2, stores=_OFTEN))

    def summands(self) -> Iterator[tuple[str, Floats, Floats]]:
        """Yield what each matrix's gradient is a sum of: products of rows, ``[B, n, ...]``."""
        yield "down_weight", self._at_answer.mid, self._inner.mid
        for name, at in self._firsts.items():
            yield f"{name}_weight", at.mid, self._x.mid

    @cached_property
    def at_weight(self) -> Ball:
        """The gradient of each route's weight, ``[B, n]``."""
        if not self.late:
            return self._dot(self.at_x_whole, self.hidden)
        bias, inner = self._bias(self.inputs.down_bias), self._inner
        after = self._dot(self.at, self._linear(inner, self._down, bias))
        before = self._dot(self._at_inner_unweighted, inner)
        if bias is not None:
            before = add(before, self._dot(self.at, bias), self.form)
        return wider(after, before)

    @cached_property
    def at_x(self) -> Ball:
        """The gradient of each row's hidden state, gate and up in one product."""
        whole = self._one_product
        return whole if self.late else mul(whole, self.weight, self.form)

    @cached_property
    def at_x_parts(self) -> Ball:
        """The same in parts, ``[B, n, 2, H]``, from gate and from up, each stored."""
        parts = self._products
        if not self.late:
            parts = [mul(each, self.weight, self.form) for each in parts]
        mids, rads = [each.mid for each in parts], [each.rad for each in parts]
        return Ball(np.stack(mids, axis=-2), np.stack(rads, axis=-2))

    @cached_property
    def at_x_whole(self) -> Ball:
        """The gradient of what goes into each expert: its parts added, or in one product."""
        parts = self._products
        whole = parts[0] if len(parts) == 1 else add(parts[0], parts[1], self.form)
        return wider(whole, self._one_product)

    # The way forward.

    @cached_property
    def _x(self) -> Ball:
        return self.hidden if self.late else mul(self.hidden, self.weight, self.form)

    @cached_property
    def _up(self) -> Ball:
        return self._linear(self._x, self._matrices["up"], self._bias(self.inputs.up_bias))

    @cached_property
    def _gate(self) -> Ball:
        return self._linear(self._x, self._matrices["gate"], self._bias(self.inputs.gate_bias))

    @cached_property
    def _inner(self) -> Ball:
        gate = self._gate if self.config.gated else None
        return self._kept(activated(self.config, gate, self._up, self.form))

    # The way back.

    @cached_property
    def _at_answer(self) -> Ball:
        """The gradient of what each expert answers."""
        return mul(self.at, self.weight, self.form) if self.late else self.at

    @cached_property
    def _at_inner_unweighted(self) -> Ball:
        return self._stored(self._summed(self.at, self._down.turned))

    @cached_property
    def _at_inner(self) -> Ball:
        """The gradient of what goes into the last product."""
        if not self.late:
            return self._at_inner_unweighted
        after = self._stored(self._summed(self._at_answer, self._down.turned))
        return wider(after, mul(self._at_inner_unweighted, self.weight, self.form))

    @cached_property
    def _of_last(self) -> Ball:
        """The gradient of the last matrices, ``[B, H, F]``."""
        after = self._matmul(turned(self._at_answer), turned(self._inner))
        if not self.late:
            return self._stored(after)
        scaled = mul(self._inner, self.weight, self.form)
        before = self._matmul(turned(self.at), turned(scaled))
        return wider(self._stored(after), self._stored(before))

    @cached_property
    def _firsts(self) -> dict[str, Ball]:
        """The gradients of the first products, ``[B, n, F]``, by name."""
        found = dict(self._through())
        return {name: self._kept(each) for name, each in found.items()}

    def _through(self) -> Iterator[tuple[str, Ball]]:
        config, form, at, up = self.config, self.form, self._at_inner, self._up
        if not config.gated:
            yield "up", through(config.activation, at, up, form)
        elif config.activation == CLAMPED:
            yield from self._through_clamped()
        else:
            activation = config.activation
            yield "gate", through(activation, mul(at, up, form), self._gate, form)
            yield "up", mul(at, PLAIN[activation](self._gate, form), form)

    def _through_clamped(self) -> Iterator[tuple[str, Ball]]:
        """Go back through gpt-oss's activation: a clamp lets nothing through past its limit."""
        config, form, at = self.config, self.form, self._at_inner
        parts = clamped_parts(config, self._gate, self._up, form)
        off = float(np.abs(form.round(config.limit) - config.limit))
        opened = through_opened(mul(at, parts.shifted, form), parts.gate, config.alpha, form)
        yield "gate", passed(opened, within(self._gate, -np.inf, config.limit, off))
        limits = within(self._up, -config.limit, config.limit, off)
        yield "up", passed(mul(at, parts.opened, form), limits)

    @cached_property
    def _products(self) -> list[Ball]:
        """The gradients of the rows, from each of the first products, stored."""
        return [
            self._stored(self._summed(at, self._matrices[name].turned))
            for name, at in self._firsts.items()
        ]

    @cached_property
    def _one_product(self) -> Ball:
        """The same from gate and up in one product."""
        if len(self._firsts) == 1:
            return self._products[0]
        mids = np.concatenate([at.mid for at in self._firsts.values()], axis=-1)
        rads = np.concatenate([at.rad for at in self._firsts.values()], axis=-1)
        rows = np.concatenate([self._matrices[name].rows for name in self._firsts], axis=-2)
        return self._stored(self._summed(Ball(mids, rads), Matrix(rows.mT)))

    # Products and sums.

    @cached_property
    def _matrices(self) -> dict[str, Matrix]:
        inputs = self.inputs
        named = {"gate": inputs.gate_weight, "up": inputs.up_weight}
        return {n: Matrix.of(each[self.experts]) for n, each in named.items() if each is not None}

    @cached_property
    def _down(self) -> Matrix:
        return Matrix.of(self.inputs.down_weight[self.experts])

    def _bias(self, bias: Array | None) -> Ball | None:
        return None if bias is None else Ball.exact(bias[self.experts][:, None])

    def _kept(self, a: Ball) -> Ball:
        """Return zeros in rows that are not there."""
        there = self.there[..., None]
        return Ball(np.where(there, a.mid, 0.0), np.where(there, a.rad, 0.0))

    def _linear(self, x: Ball, matrix: Matrix, bias: Ball | None) -> Ball:
        """Return a product, stored; a bias is then added, or the sum begins with it."""
        made = self._stored(self._summed(x, matrix, bias))
        return made if bias is None else add(made, bias, self.form)

    def _summed(self, a: Ball, matrix: Matrix, start: Ball | None = None) -> Ball:
        return summed(a, matrix, products=self.products, start=start)

    def _stored(self, a: Ball) -> Ball:
        return settled(a, self.form, 0)

    def _matmul(self, a: Ball, rows: Ball) -> Ball:
        """Return ``a @ rows.mT``, both of them balls, summed in float32 in any order."""
        found = self._summed(a, Matrix(rows.mid))
        if not rows.rad.any():
            return found
        off = rows.rad + (_TF32 * rows.reach if self.products == "tf32" else 0.0)
        units = np.expm1(rows.mid.shape[-1] * UNIT)
        return known(found.mid, found.rad + (1.0 + units) * (a.reach @ off.mT))

    def _dot(self, a: Ball, b: Ball) -> Ball:
        """Return the dot product of each row: products stored or not, a sum, a store."""
        each = mul(a, b, self.form)
        if self.products == "tf32":
            each = known(each.mid, each.rad + 3.0 * _TF32 * each.reach)
        return self._stored(total(each, FLOAT32))

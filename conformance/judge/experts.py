"""Which outputs of a layer's experts rounding can explain (docs/spec/judging.md, "Experts")."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge.activations import activated
from moe_routing.conformance.judge.ball_sums import Matrix, summed, total
from moe_routing.conformance.judge.balls import TINY, Ball, add, known, mul, rounded, settled
from moe_routing.conformance.judge.expert_batches import batches
from moe_routing.conformance.judge.expert_ranges import all_decided
from moe_routing.conformance.judge.experts_point import Near, is_large, near, permitted
from moe_routing.conformance.judge.intervals import underflow
from moe_routing.reference import ExpertsConfig, ExpertsInputs, expert_outputs
from moe_routing.reference.experts import Array
from moe_routing.reference.formats import INPUT_FORMATS, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.routes import ABSENT

_SLOTS = 2**23
"""How many numbers all slots of the tokens have that are held to whole radii at once."""


@dataclass(frozen=True, eq=False)
class Layer:
    """What follows from a call of a layer's experts: outputs, loads, contributions.

    ``products`` says what float32 products are made in.
    """

    config: ExpertsConfig
    inputs: ExpertsInputs
    products: str = "float32"

    @property
    def form(self) -> FloatFormat:
        """The format in which results may be stored."""
        return INPUT_FORMATS[self.inputs.dtype]

    @cached_property
    def present(self) -> Bools:
        """Whether each route is there, ``[T, K]``."""
        there: Bools = self.inputs.expert_ids != ABSENT
        return there

    @cached_property
    def counts(self) -> Ids:
        """The routes of each expert, ``[E]``."""
        ids = self.inputs.expert_ids[self.present]
        return np.bincount(ids, minlength=self.config.num_experts).astype(np.int64)

    @cached_property
    def output(self) -> Ball:
        """The permitted outputs, ``[T, H]``."""
        return layer_ball(self.config, self.inputs, self.products)

    @cached_property
    def near(self) -> Near:
        """The centres of the outputs, and lower bounds of their radii, at a fifth of the cost."""
        form = self.form
        weights = weight_ball(self.inputs.weights.astype(np.float64), form)
        return near(self.config, self.inputs, form, weights)

    def permits(self, values: Floats) -> Bools:
        """Return where ``values [T, H]`` are permitted: as ``output`` says it, at less cost."""
        if "output" in vars(self) or not is_large(self.inputs):
            return self.output.contains(values)
        most = max(1, _SLOTS // (self.inputs.top_k * self.inputs.hidden_size))
        return permitted(self.near, values, lambda rows: self.rows(rows).output, most)

    def certainly_right(self, values: Floats) -> bool:
        """Whether all ``values [T, H]`` of a large call are permitted, and each is decided.

        False says that ``output`` has to tell.
        """
        if not is_large(self.inputs) or not all_decided(self.config, self.inputs, self.form):
            return False
        return bool(self.permits(values).all())

    def closest(self, values: Floats) -> tuple[Ball, Floats]:
        """Return values and what holds them: of a large layer, of the token nearest its bound."""
        if "output" in vars(self) or not is_large(self.inputs):
            return self.output, values
        rows = self.near.closest(values)
        return self.rows(rows).output, values[rows]

    def rows(self, rows: Ids) -> Layer:
        """Return the same call of some of its tokens."""
        return Layer(self.config, self.inputs.of_tokens(rows), self.products)

    @cached_property
    def exact(self) -> Bools:
        """Which outputs, ``[T, H]``, no honest order of operations rounds."""
        firm: Bools = self.output.rad == 0.0
        return firm

    @cached_property
    def answers(self) -> Floats:
        """What the expert of each slot answers, before its weight where that comes after."""
        return expert_outputs(self.config, self.inputs)

    @cached_property
    def skipping(self) -> Ball:
        """The permitted outputs where a route of weight 0 is never computed, ``[T, H]``."""
        inputs = self.inputs
        ids = np.where(inputs.weights == 0.0, ABSENT, inputs.expert_ids)
        return layer_ball(self.config, replace(inputs, expert_ids=ids), self.products)


def weight_ball(weights: Floats, form: FloatFormat) -> Ball:
    """Return routing weights, which may be rounded to ``form`` where it does not hold them."""
    exact = Ball.exact(weights)
    held = form.name == "float32" or bool(form.represents(weights).all())
    return exact if held else rounded(exact, form, 0)


def layer_ball(config: ExpertsConfig, inputs: ExpertsInputs, products: str = "float32") -> Ball:
    """Return the weighted sum over the slots of each token, ``[T, H]``, in any order.

    Each partial sum may be stored, as where slots are added to an output one after the other.
    """
    form = INPUT_FORMATS[inputs.dtype]
    weights = weight_ball(inputs.weights.astype(np.float64), form)
    slots = slot_balls(config, inputs, products, weights=weights)
    return total(slots, form, axis=1, stores=inputs.top_k)


def slot_balls(
    config: ExpertsConfig,
    inputs: ExpertsInputs,
    products: str = "float32",
    *,
    form: FloatFormat | None = None,
    weights: Ball | None = None,
) -> Ball:
    """Return what each slot adds, weighted, ``[T, K, H]``; exactly 0 where it is absent.

    Results may be stored in ``form``, that of the inputs where it is None; ``weights [T, K]``
    stand for those of the inputs.
    """
    weights = Ball.exact(inputs.weights) if weights is None else weights
    shape = (inputs.num_tokens, inputs.top_k, inputs.hidden_size)
    mid, rad = np.zeros(shape), np.zeros(shape)
    for batch in batches(inputs):
        some = _Experts(
            *(config, inputs, batch.experts, products),
            form=form or INPUT_FORMATS[inputs.dtype],
        )
        for part in batch.parts(max(inputs.hidden_size, inputs.width)):
            own, there = weights[part.tokens, part.slots], part.there
            made = some.weighted(
                Ball.exact(part.of(inputs.hidden[part.tokens])),
                Ball(part.of(own.mid[..., None]), part.of(own.rad[..., None])),
                there,
            )
            places = part.tokens[there], part.slots[there]
            mid[places], rad[places] = made.mid[there], made.rad[there]
    return Ball(mid, rad)


@dataclass(frozen=True, eq=False)
class _Experts:
    """Several experts of a call, ``[B]``, each with rows of its own, ``[B, n, ...]``."""

    config: ExpertsConfig
    inputs: ExpertsInputs
    experts: Ids
    products: str
    form: FloatFormat

    def weighted(self, x: Ball, weight: Ball, there: Bools) -> Ball:
        """Return what the experts add for ``x [B, n, H]``, whose weights are ``[B, n, 1]``.

        A weight on the output is applied to it, or before the product that makes it: either is
        right, so that the greater radius of the two holds. That is the latter's, but for underflow,
        where every product with a weight is rounded: none of a row is greater than the magnitudes
        that it sums.
        """
        if self.config.weight_on == "input":
            inner = self._inner(mul(x, weight, self.form))
            return self._linear(inner, self._last, self._bias(self.inputs.down_bias))
        inner = self._inner(x)
        scaled, bias = mul(inner, weight, self.form), self._bias(self.inputs.down_bias)
        late = None if bias is None else mul(bias, weight, self.form)
        before = self._linear(scaled, self._last, late)
        some = (scaled.rad > 0.0).any(axis=-1, keepdims=True)
        grown = some & _grown(scaled) & (weight.mid != 0.0) & (weight.rad == 0.0)
        if late is not None:
            grown &= _grown(late)
        under = 3.0 * (TINY + underflow(self.form)) * (1.0 + weight.reach)
        rad = before.rad + under
        if not grown[there].all():
            after = mul(self._linear(inner, self._last, bias), weight, self.form)
            rad = np.where(grown, rad, np.maximum(after.rad, before.rad))
        return known(before.mid, rad)

    def _inner(self, x: Ball) -> Ball:
        """Return what goes into the last product, ``[B, n, F]``."""
        inputs = self.inputs
        up = self._linear(x, self._up, self._bias(inputs.up_bias))
        gate = None
        if (matrix := self._gate) is not None:
            gate = self._linear(x, matrix, self._bias(inputs.gate_bias))
        return activated(self.config, gate, up, self.form)

    @cached_property
    def _up(self) -> Matrix:
        return self._matrix(self.inputs.up_weight)

    @cached_property
    def _gate(self) -> Matrix | None:
        weight = self.inputs.gate_weight
        return None if weight is None else self._matrix(weight)

    @cached_property
    def _last(self) -> Matrix:
        return self._matrix(self.inputs.down_weight)

    def _linear(self, x: Ball, matrix: Matrix, bias: Ball | None) -> Ball:
        """Return a product, stored; a bias is then added, or the sum begins with it."""
        products = self.products if self.form.name == "float32" else "float32"
        made = settled(summed(x, matrix, products=products, start=bias), self.form, 0)
        return made if bias is None else add(made, bias, self.form)

    def _matrix(self, weight: Array) -> Matrix:
        return Matrix.of(weight[self.experts])

    def _bias(self, bias: Array | None) -> Ball | None:
        return None if bias is None else Ball.exact(bias[self.experts][:, None])


def _grown(product: Ball) -> Bools:
    """Return whether every number of a row ``[B, n, 1]`` that is not 0 has been rounded."""
    open_ = (product.rad > 0.0) | (product.mid == 0.0)
    return np.asarray(open_.all(axis=-1, keepdims=True))

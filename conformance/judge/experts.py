"""Which outputs of a layer's experts rounding can explain (docs/spec/judging.md, "Experts")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.activations import activated
from moe_routing.conformance.judge.ball_sums import Matrix, summed, total
from moe_routing.conformance.judge.balls import TINY, Ball, add, known, mul, rounded, settled
from moe_routing.conformance.judge.intervals import underflow
from moe_routing.reference import ExpertsConfig, ExpertsInputs, expert_outputs
from moe_routing.reference.experts import Array
from moe_routing.reference.formats import INPUT_FORMATS, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.routes import ABSENT


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
    for batch in _batches(inputs):
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


_LARGE = 2**22
"""The most numbers of a weight that one batch of experts gathers; a larger one goes alone."""

_CACHED = 2**17
"""About how many numbers an array of rows has: many are made of it, and a cache holds a few."""


@dataclass(frozen=True, eq=False)
class _Batch:
    """Experts ``[B]`` with their routes, ``[B, n]``: a token, a slot, and whether it is there."""

    experts: Ids
    tokens: Ids
    slots: Ids
    there: Bools

    def parts(self, width: int) -> Iterator[_Batch]:
        """Yield the batch in parts of its rows, of about ``_CACHED`` numbers at ``width``."""
        rows = max(8, _CACHED // (len(self.experts) * width))
        for start in range(0, self.there.shape[1], rows):
            some = (slice(None), slice(start, start + rows))
            yield _Batch(self.experts, self.tokens[some], self.slots[some], self.there[some])

    def of(self, values: npt.NDArray[Any]) -> Floats:
        """Return values ``[B, n, ...]`` with zeros where no route is there."""
        return np.where(self.there[..., None], values, 0.0)


def _batches(inputs: ExpertsInputs) -> Iterator[_Batch]:
    """Yield the chosen experts, those of like counts together, so that little is padded."""
    flat = inputs.expert_ids.reshape(-1)
    order = np.argsort(flat, kind="stable")[np.count_nonzero(flat == ABSENT) :]
    experts, starts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    for some in _alike(counts, inputs.hidden_size * inputs.width):
        within = np.arange(counts[some].max())
        there = within < counts[some][:, None]
        routes = order[np.where(there, starts[some][:, None] + within, 0)]
        yield _Batch(experts[some], *np.divmod(routes, inputs.top_k), there)


def _alike(counts: Ids, size: int) -> Iterator[Ids]:
    """Yield the places of counts that are alike: none is less than half of the greatest."""
    left = np.argsort(-counts, kind="stable")
    while left.size:
        most = max(1, _LARGE // size)
        near = left[: np.count_nonzero(2 * counts[left] + 8 >= counts[left[0]])][:most]
        yield near
        left = left[near.size :]


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
        if (
            _grown(scaled, there)
            and (late is None or _grown(late, there))
            and (weight.mid[there] != 0.0).all()
            and not weight.rad.any()
        ):
            under = 3.0 * (TINY + underflow(self.form)) * (1.0 + weight.reach)
            return known(before.mid, before.rad + under)
        after = mul(self._linear(inner, self._last, bias), weight, self.form)
        return known(before.mid, np.maximum(after.rad, before.rad))

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


def _grown(product: Ball, there: Bools) -> bool:
    """Whether every number that is not 0 has been rounded, in the rows that are there."""
    open_ = (product.rad > 0.0) | (product.mid == 0.0)
    return bool(open_[there].all())

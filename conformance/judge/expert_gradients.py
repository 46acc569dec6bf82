"""Which gradients of a layer's experts rounding can explain (docs/spec/judging.md, "Experts")."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from moe_routing.conformance.judge.ball_sums import total
from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.certain_experts import certainly_right
from moe_routing.conformance.judge.expert_batches import Batch, batches
from moe_routing.conformance.judge.expert_ways import Way
from moe_routing.conformance.judge.experts import Layer, weight_ball
from moe_routing.conformance.judge.gradient_balls import wider
from moe_routing.conformance.judge.gradients import Judged
from moe_routing.reference import (
    EXPERT_GRADIENTS,
    ExpertGradients,
    ExpertsConfig,
    ExpertsInputs,
    expert_gradients,
)
from moe_routing.reference.formats import INPUT_FORMATS, Bools, FloatFormat, Floats, Numbers

_ROUTES = ("hidden", "weights")


@dataclass(frozen=True, eq=False)
class Learning:
    """What follows from a call of experts' gradients.

    ``products`` says what float32 products are made in. Routing weights that have more bits than
    the inputs' dtype may be rounded to it. Without ``matrices`` nothing is made of the gradients of
    matrices and biases, which are most of the numbers.
    """

    config: ExpertsConfig
    inputs: ExpertsInputs
    cotangent: Floats
    products: str = "float32"
    matrices: bool = True

    @cached_property
    def layer(self) -> Layer:
        """What follows from the call of experts."""
        return Layer(self.config, self.inputs, self.products)

    @cached_property
    def reference(self) -> ExpertGradients:
        """The reference's gradients."""
        return expert_gradients(self.config, self.inputs, self.cotangent.astype(np.float32))

    @cached_property
    def permitted(self) -> Mapping[str, Ball]:
        """The permitted gradients of all inputs that are there, by name."""
        with np.errstate(all="ignore"):
            return dict(_permitted(self))

    @cached_property
    def skippable(self) -> Bools:
        """The routes ``[T, K]`` that need not be computed: their weight, on the output, is 0.

        The gradient of such a weight is what the expert answers, or 0 where nobody asked it.
        """
        zero: Bools = self.layer.present & (self.inputs.weights == 0.0)
        return zero & (self.config.weight_on == "output")

    @cached_property
    def sums_in_steps(self) -> Mapping[str, Floats]:
        """The gradients of matrices whose sums are stored after each route, by name."""
        found = {n: np.zeros(b.mid.shape) for n, b in self.permitted.items() if b.mid.ndim == 3}
        with np.errstate(all="ignore"):
            for batch in batches(self.inputs):
                for name, at, x in _way(self, batch).summands():
                    found[name][batch.experts] = _in_steps(at, x, self.layer.form)
        return found

    def judged(self, given: Mapping[str, Numbers]) -> dict[str, Judged]:
        """Judge gradients by name; one that is not given counts as zeros."""
        certain = cache(partial(self._certain, given))
        return {name: self._judge(name, given.get(name), certain) for name in self._names}

    @cached_property
    def _names(self) -> list[str]:
        names = [n for n in self.inputs.arrays() if n in EXPERT_GRADIENTS]
        return [n for n in names if self.matrices or n in _ROUTES]

    def _certain(self, given: Mapping[str, Numbers]) -> bool:
        """Whether all gradients are right for certain."""
        if not set(self._names) <= set(given):
            return False
        some = {name: given[name] for name in self._names}
        return certainly_right(self.config, self.inputs, self.cotangent, some)

    def _judge(self, name: str, given: Numbers | None, certain: Callable[[], bool]) -> Judged:
        answered: Numbers = np.zeros(getattr(self.inputs, name).shape) if given is None else given
        return Judged(
            name=name,
            answered=answered,
            given=given is not None,
            permit=partial(self._permit, name, answered),
            certain=certain,
        )

    def _permit(self, name: str, answered: Numbers) -> Ball:
        ball = self.permitted[name]
        if name != "weights":
            return ball
        skipped = self.skippable & (answered == 0.0)
        return Ball(np.where(skipped, 0.0, ball.mid), np.where(skipped, 0.0, ball.rad))


def _permitted(learning: Learning) -> Iterator[tuple[str, Ball]]:
    inputs = learning.inputs
    shapes = {n: a.shape for n, a in inputs.arrays().items() if n in EXPERT_GRADIENTS}
    wanted = [name for name in shapes if learning.matrices or name in _ROUTES]
    made = {name: _zeros(shapes[name]) for name in wanted if name != "hidden"}
    slots = inputs.num_tokens, inputs.top_k
    parts = _zeros((*slots, 1 + learning.config.gated, inputs.hidden_size))
    rows = _zeros((*slots, inputs.hidden_size))
    for batch in batches(inputs):
        way = _way(learning, batch)
        there = batch.there
        places = batch.tokens[there], batch.slots[there]
        _put(parts, places, way.at_x_parts[there])
        _put(rows, places, way.at_x[there])
        _put(made["weights"], places, way.at_weight[there])
        for name, ball in way.of_experts() if learning.matrices else ():
            _put(made[name], batch.experts, ball)
    yield "hidden", _summed(learning, parts, rows)
    yield from made.items()


def _in_steps(at: Floats, x: Floats, form: FloatFormat) -> Floats:
    total = np.zeros((len(at), at.shape[2], x.shape[2]))
    for row in range(at.shape[1]):
        total = form.round(total + at[:, row, :, None] * x[:, row, None, :]).astype(np.float64)
    return total


def _way(learning: Learning, batch: Batch) -> Way:
    inputs, form = learning.inputs, learning.layer.form
    return Way(
        config=learning.config,
        inputs=inputs,
        experts=batch.experts,
        there=batch.there,
        products=learning.products if inputs.dtype == "float32" else "float32",
        hidden=Ball.exact(batch.of(inputs.hidden[batch.tokens])),
        weight=weight_ball(batch.of(inputs.weights[batch.tokens, batch.slots][..., None]), form),
        at=Ball.exact(batch.of(learning.cotangent[batch.tokens])),
    )


def _summed(learning: Learning, parts: Ball, rows: Ball) -> Ball:
    """Add the slots of each token, or the products of gate and up of each slot, in any order."""
    form = INPUT_FORMATS[learning.inputs.dtype]
    tokens, slots, each, size = parts.mid.shape
    flat = Ball(
        parts.mid.reshape(tokens, slots * each, size), parts.rad.reshape(tokens, slots * each, size)
    )
    added = total(flat, form, axis=1, stores=slots * each)
    return wider(added, total(rows, form, axis=1, stores=slots))


def _zeros(shape: tuple[int, ...]) -> Ball:
    return Ball(np.zeros(shape), np.zeros(shape))


def _put(whole: Ball, places: Any, ball: Ball) -> None:
    whole.mid[places], whole.rad[places] = ball.mid, ball.rad

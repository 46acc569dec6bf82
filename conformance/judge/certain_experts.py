"""Gradients of experts that certainly are permitted: points, and a part of each radius.

Each first product has a radius of a unit for every summand, and what is made of it has at least
that in proportion. So the products that follow may be made in float32. Derivations:
docs/spec/judging.md, "What certainly lies within".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.balls import UNIT
from moe_routing.conformance.judge.expert_gradient_points import KEPT, ExpertPoints
from moe_routing.conformance.judge.intervals import store_unit
from moe_routing.conformance.judge.least import greatest, magnitudes
from moe_routing.conformance.judge.relative_products import NORMAL, within_even
from moe_routing.reference import ExpertsConfig, ExpertsInputs
from moe_routing.reference.activations import PLAIN
from moe_routing.reference.formats import INPUT_FORMATS, Bools, Floats, Ids, Numbers
from moe_routing.reference.routes import ABSENT

_PRODUCTS = 2**20
"""The products of one matrix with all routes from which a call is large: it saves time there."""

_ROUTES = ("hidden", "weights")
_MATRICES = ("gate_weight", "up_weight", "down_weight")
_EVERY = 16
"""Of how many summands one is of a part that is summed first; and how many are, of few numbers."""

_MANY = 32
"""The part of all numbers from which magnitudes are summed of all, as one product."""


def certainly_right(
    config: ExpertsConfig, inputs: ExpertsInputs, cotangent: Floats, given: Mapping[str, Numbers]
) -> bool:
    """Whether all gradients that are given certainly are permitted, and no other is missing.

    Of large calls of gated experts without biases. False says nothing.
    """
    if not _is_plain(config, inputs, given):
        return False
    with np.errstate(all="ignore"):
        if given["weights"][inputs.expert_ids == ABSENT].any():
            return False
        hidden = _Hidden.of(inputs, given["hidden"])
        for number in range(config.num_experts):
            tokens, slots = np.nonzero(inputs.expert_ids == number)
            one = _expert(config, inputs, cotangent, number, tokens, slots)
            if not _has(one, number, (tokens, slots), given, INPUT_FORMATS[inputs.dtype].largest):
                return False
            hidden.add(one, tokens)
        return hidden.is_right(store_unit(INPUT_FORMATS[inputs.dtype]))


def _is_plain(config: ExpertsConfig, inputs: ExpertsInputs, given: Mapping[str, Numbers]) -> bool:
    biases = (inputs.gate_bias, inputs.up_bias, inputs.down_bias)
    return (
        config.gated
        and config.activation in PLAIN
        and config.weight_on == "output"
        and all(each is None for each in biases)
        and set(_ROUTES) <= set(given) <= {*_ROUTES, *_MATRICES}
        and inputs.expert_ids.size * inputs.hidden_size * inputs.width >= _PRODUCTS
    )


def _expert(
    config: ExpertsConfig,
    inputs: ExpertsInputs,
    cotangent: Floats,
    number: int,
    tokens: Ids,
    slots: Ids,
) -> ExpertPoints:
    assert inputs.gate_weight is not None
    return ExpertPoints(
        activation=config.activation,
        x=inputs.hidden[tokens],
        weight=inputs.weights[tokens, slots].astype(np.float64)[:, None],
        at=cotangent[tokens],
        gate_matrix=inputs.gate_weight[number],
        up_matrix=inputs.up_weight[number],
        down_matrix=inputs.down_weight[number],
        store=store_unit(INPUT_FORMATS[inputs.dtype]),
    )


def _has(
    one: ExpertPoints,
    number: int,
    routes: tuple[Ids, Ids],
    given: Mapping[str, Numbers],
    largest: float,
) -> bool:
    """Whether the gradients of an expert's matrices and of its weights are certainly right."""
    named = {name: given[name][number] for name in _MATRICES if name in given}
    if not len(routes[0]):  # nothing is added up
        return not any(each.any() for each in named.values())
    if not (one.is_calm(largest) and one.rounds() and one.has_weights(given["weights"][routes])):
        return False
    return all(
        within_even(named[name], a @ rows.T, sizes, rows, units, one.store)
        for name, a, rows, sizes, units in one.matrices()
        if name in named
    )


@dataclass(eq=False)
class _Hidden:
    """The gradient of the hidden states, added up expert by expert."""

    answered: Numbers
    point: Floats
    units: float
    parts: list[tuple[ExpertPoints, Ids]]

    @classmethod
    def of(cls, inputs: ExpertsInputs, answered: Numbers) -> _Hidden:
        """Begin with nothing."""
        return cls(answered, np.zeros(inputs.hidden.shape), np.inf, [])

    def add(self, one: ExpertPoints, tokens: Ids) -> None:
        """Add what the routes of an expert send back."""
        if not len(tokens):
            return
        a, rows = one.at_x
        _add_at(self.point, tokens, a @ rows.T)
        self.units = min(self.units, sum(one.units) + one.stores[1] * one.store)
        self.parts.append((one, tokens))

    def is_right(self, store: float) -> bool:
        """Whether every number is certainly right: by the sum itself, or by some summands."""
        if not self.parts:
            return not self.answered.any()
        off, size = np.abs(self.answered - self.point), np.abs(self.point)
        used = KEPT * (self.units - 4.0 * UNIT)
        left = ~((off <= (used + store) * size) & (size >= NORMAL))
        left &= (off != 0.0) | (size != 0.0)  # a token that has no route
        for every in (_EVERY, 1):
            if not left.any():
                return True
            least = self._least(left, every)
            left &= ~((off <= used * least + store * size) & (least >= NORMAL))
        return not left.any()

    def _least(self, left: Bools, every: int) -> Floats:
        """Return at most the magnitudes of what is added up, where ``left``: of some, or of all."""
        many, least = left.sum() > left.size // _MANY, np.zeros(left.shape)
        for one, tokens in self.parts:
            sizes, rows = np.concatenate(one.sizes, axis=1), one.at_x[1]
            if many:
                some = sizes[:, ::every] @ np.abs(rows[:, ::every]).T
                _add_at(least, tokens, some)
                continue
            row, column = np.nonzero(left[tokens])
            chosen = greatest(sizes, _EVERY) if every > 1 else None
            magnitude = magnitudes(sizes, rows, (row, column), chosen)
            np.add.at(least, (tokens[row], column), magnitude)
        return least


def _add_at(total: Floats, tokens: Ids, rows: npt.NDArray[np.float32]) -> None:
    """Add rows to those of their ``tokens``, which are in order and may repeat."""
    if (tokens[1:] != tokens[:-1]).all():
        total[tokens] += rows
    else:
        np.add.at(total, tokens, rows)

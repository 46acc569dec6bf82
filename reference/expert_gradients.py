"""Gradients of a layer's experts: its vector-Jacobian product (docs/spec/experts.md).

The scalar that is differentiated is the sum of the output times a cotangent ``[T, H]``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference.activation_slopes import SLOPES, clamped_slopes
from moe_routing.reference.activations import CLAMPED, PLAIN
from moe_routing.reference.arrays import check_shapes, convert
from moe_routing.reference.experts import Array, ExpertsConfig, ExpertsInputs
from moe_routing.reference.formats import Floats
from moe_routing.reference.routes import ABSENT


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertGradients:
    """Gradients by the names of ``ExpertsInputs``; None where there is no such input.

    Shapes are those of the inputs, whatever library the arrays are of. ``weights [T, K]`` is what
    the router learns from.
    """

    hidden: Any = None
    weights: Any = None
    gate_weight: Any = None
    up_weight: Any = None
    down_weight: Any = None
    gate_bias: Any = None
    up_bias: Any = None
    down_bias: Any = None

    def arrays(self) -> dict[str, Any]:
        """Return the gradients that are there, by name."""
        return {name: each for name, each in vars(self).items() if each is not None}


EXPERT_GRADIENTS: tuple[str, ...] = tuple(field.name for field in fields(ExpertGradients))
"""The names of all gradients of experts."""


def expert_gradients(
    config: ExpertsConfig, inputs: ExpertsInputs, cotangent: npt.ArrayLike
) -> ExpertGradients:
    """Return the gradients of ``sum output[t, h] * cotangent[t, h]``, in float64.

    A route that is absent has no gradient and adds to none; an expert without routes has zeros.
    Errors: ``ValueError`` where the arguments do not fit one another.
    """
    config.check(inputs)
    given = convert("cotangent", cotangent, np.float32)
    check_shapes({"hidden": inputs.hidden, "cotangent": given}, dict.fromkeys(_OUTPUTS, "TH"))
    found = {
        name: np.zeros(array.shape)
        for name, array in inputs.arrays().items()
        if name in EXPERT_GRADIENTS
    }
    with np.errstate(all="ignore"):
        for expert in np.unique(inputs.expert_ids[inputs.expert_ids != ABSENT]):
            _add(config, inputs, int(expert), given.astype(np.float64), found)
    return ExpertGradients(**found)


_OUTPUTS = ("hidden", "cotangent")


def _add(
    config: ExpertsConfig,
    inputs: ExpertsInputs,
    expert: int,
    cotangent: Floats,
    found: dict[str, Floats],
) -> None:
    """Add what the routes of one expert bring to all gradients."""
    tokens, slots = np.nonzero(inputs.expert_ids == expert)
    hidden = inputs.hidden[tokens].astype(np.float64)
    weight, at = inputs.weights[tokens, slots, None].astype(np.float64), cotangent[tokens]
    late = config.weight_on == "output"
    way = _Way(config, inputs, expert, hidden if late else hidden * weight)
    at_answer = at * weight if late else at
    at_x = way.back(at_answer, found)
    if late:
        found["weights"][tokens, slots] = (at * way.answer).sum(axis=1)
        np.add.at(found["hidden"], tokens, at_x)
    else:
        found["weights"][tokens, slots] = (at_x * hidden).sum(axis=1)
        np.add.at(found["hidden"], tokens, at_x * weight)


@dataclass(frozen=True, eq=False)
class _Way:
    """One expert on its rows ``x [N, H]``, forward and back."""

    config: ExpertsConfig
    inputs: ExpertsInputs
    expert: int
    x: Floats

    @property
    def up(self) -> Floats:
        return self._linear(self.x, self.inputs.up_weight, self.inputs.up_bias)

    @property
    def gate(self) -> Floats:
        assert self.inputs.gate_weight is not None
        return self._linear(self.x, self.inputs.gate_weight, self.inputs.gate_bias)

    @property
    def inner(self) -> Floats:
        """What goes into the last product."""
        if not self.config.gated:
            return PLAIN[self.config.activation](self.up)
        if self.config.activation == CLAMPED:
            return clamped_slopes(self.gate, self.up, self.config.limit, self.config.alpha)[0]
        return PLAIN[self.config.activation](self.gate) * self.up

    @property
    def answer(self) -> Floats:
        """What the expert answers."""
        return self._linear(self.inner, self.inputs.down_weight, self.inputs.down_bias)

    def back(self, at: Floats, found: dict[str, Floats]) -> Floats:
        """Add the gradients of the weights, and return that of ``x``."""
        at_x = np.zeros_like(self.x)
        self._weigh(found, "down", at, self.inner)
        at_inner = at @ self.inputs.down_weight[self.expert].astype(np.float64)
        for name, matrix, own in self._first(at_inner):
            self._weigh(found, name, own, self.x)
            at_x += own @ matrix[self.expert].astype(np.float64)
        return at_x

    def _first(self, at: Floats) -> list[tuple[str, Array, Floats]]:
        """Return the gradients of the first products, with their matrices, by name."""
        config, inputs = self.config, self.inputs
        if inputs.gate_weight is None:
            return [("up", inputs.up_weight, at * SLOPES[config.activation](self.up))]
        if config.activation == CLAMPED:
            _, by_gate, by_up = clamped_slopes(self.gate, self.up, config.limit, config.alpha)
        else:
            by_gate = self.up * SLOPES[config.activation](self.gate)
            by_up = PLAIN[config.activation](self.gate)
        return [
            ("gate", inputs.gate_weight, at * by_gate),
            ("up", inputs.up_weight, at * by_up),
        ]

    def _weigh(self, found: dict[str, Floats], name: str, at: Floats, x: Floats) -> None:
        """Add the gradients of a matrix and of its bias."""
        found[f"{name}_weight"][self.expert] += at.T @ x
        if f"{name}_bias" in found:
            found[f"{name}_bias"][self.expert] += at.sum(axis=0)

    def _linear(self, x: Floats, weight: Array, bias: Array | None) -> Floats:
        product: Floats = x @ weight[self.expert].T.astype(np.float64)
        return product if bias is None else product + bias[self.expert]

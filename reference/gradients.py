"""Gradients: the vector-Jacobian product of the whole router (docs/spec/gradients.md).

The scalar that is differentiated is ``sum over t, k of w[t, k] * G[t, ids[t, k]]``: the cotangent
G is dense, ``[T, E]``, so that it fits any order of slots and any choice of experts. The choice
itself has no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference.arrays import check_shapes, convert
from moe_routing.reference.config import RouterConfig
from moe_routing.reference.formats import Floats, Ids
from moe_routing.reference.inputs import RouterInputs
from moe_routing.reference.logits import normalize_input
from moe_routing.reference.routes import ABSENT
from moe_routing.reference.routing import Stages, stages
from moe_routing.reference.weight_gradients import (
    Slots,
    expert_scale_gradient,
    logit_gradient,
    operated_gradient,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradients:
    """Gradients by the names of ``RouterInputs``; None where there is no such input.

    Shapes are those of the inputs. ``logits [T, E]`` is the gradient of ``Routing.logits``,
    which every call has. A selection bias steers the choice alone: its gradient is 0, and None
    says the same.
    """

    logits: Any = None
    hidden: Any = None
    gate_weight: Any = None
    gate_bias: Any = None
    gate_delta: Any = None
    selection_bias: Any = None
    per_expert_scale: Any = None
    hidden_scale: Any = None

    def arrays(self) -> dict[str, Any]:
        """Return the gradients that are there, by name."""
        return {name: each for name, each in vars(self).items() if each is not None}


GRADIENTS: tuple[str, ...] = tuple(field.name for field in fields(Gradients))
"""The names of all gradients, in the order of the way back."""


def gradients(
    config: RouterConfig,
    inputs: RouterInputs,
    expert_ids: npt.ArrayLike,
    cotangent: npt.ArrayLike,
) -> Gradients:
    """Return the gradients of ``sum w[t, k] * cotangent[t, ids[t, k]]`` at given ids, in float64.

    ``expert_ids [T, K]`` may be any experts: outside the best K, one several times (their
    gradients add), or -1 where a route is absent (it adds nothing, and no cotangent is read for
    it). Errors: ``ValueError`` where the arguments do not fit one another.
    """
    ids, given = _checked(config, inputs, expert_ids, cotangent)
    done = stages(config, inputs)
    with np.errstate(all="ignore"):
        slots = Slots.of(config, inputs, done, ids, given)
        at_logits = logit_gradient(config, done.logits, operated_gradient(config, done, slots))
        scales = inputs.per_expert_scale is not None
        return Gradients(
            logits=at_logits,
            per_expert_scale=expert_scale_gradient(config, slots) if scales else None,
            selection_bias=_zeros(inputs.selection_bias),
            **_of_the_gate(config, inputs, done, at_logits),
        )


def _checked(
    config: RouterConfig, inputs: RouterInputs, expert_ids: npt.ArrayLike, cotangent: npt.ArrayLike
) -> tuple[Ids, Floats]:
    ids: Ids = convert("expert_ids", expert_ids, np.int64)
    given = convert("cotangent", cotangent, np.float32)
    shapes = {"hidden": "TH", "gate_weight": "EH", "expert_ids": "TK", "cotangent": "TE"}
    arrays = {"hidden": inputs.hidden, "gate_weight": inputs.gate_weight}
    check_shapes({**arrays, "expert_ids": ids, "cotangent": given}, shapes)
    if ids.size and (ids.min() < ABSENT or ids.max() >= config.num_experts):
        raise ValueError(
            f"Expected expert_ids in [0, {config.num_experts}), or {ABSENT} where a route is "
            f"absent, but got values from {ids.min()} to {ids.max()}"
        )
    return ids, given.astype(np.float64)


def _of_the_gate(
    config: RouterConfig, inputs: RouterInputs, done: Stages, at_logits: Floats
) -> dict[str, Floats | None]:
    """Return the gradients of what the logits are made of, from those of the logits."""
    seen = normalize_input(config.input_norm, inputs)
    weight: Floats = at_logits.T @ seen
    gate = inputs.gate_weight.astype(np.float64)
    at_seen: Floats = at_logits @ gate
    if inputs.gate_delta is not None:
        at_seen = at_seen + at_logits @ inputs.gate_delta.astype(np.float64)
    at_hidden, at_scale = _of_the_input(config, inputs, at_seen)
    return {
        "hidden": at_hidden,
        "gate_weight": weight,
        "gate_bias": None if inputs.gate_bias is None else at_logits.sum(axis=0),
        "gate_delta": None if inputs.gate_delta is None else weight,
        "hidden_scale": at_scale,
    }


def _of_the_input(
    config: RouterConfig, inputs: RouterInputs, at_seen: Floats
) -> tuple[Floats, Floats | None]:
    """Return the gradients of the hidden states and of their scale, through the input norm."""
    if config.input_norm is None:
        return at_seen, None
    hidden, size = inputs.hidden.astype(np.float64), inputs.hidden_size
    mean_square = np.mean(hidden * hidden, axis=1, keepdims=True)
    root = np.sqrt(mean_square + config.input_norm.eps)
    unit, constant = hidden / root, size**-0.5
    scale = 1.0 if inputs.hidden_scale is None else inputs.hidden_scale.astype(np.float64)
    at_unit = at_seen * scale * constant
    shared = np.mean(at_unit * unit, axis=1, keepdims=True)
    at_hidden: Floats = (at_unit - unit * shared) / root
    at_scale: Floats = (at_seen * unit).sum(axis=0) * constant
    return at_hidden, None if inputs.hidden_scale is None else at_scale


def _zeros(array: npt.NDArray[np.float32] | None) -> Floats | None:
    return None if array is None else np.zeros(array.shape)

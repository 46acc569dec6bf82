"""What a backend with a method ``gradients`` claims of it, and the form of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moe_routing.implementations.permitted import Closed, check_values, one_of
from moe_routing.reference import GRADIENTS

OF_INPUTS = tuple(name for name in GRADIENTS if name not in ("logits", "selection_bias"))
"""The gradients that a router is trained by: those of its inputs but the selection bias."""

OF_GATE = ("hidden", "gate_weight", "gate_bias", "gate_delta", "hidden_scale")
"""The gradients of what the logits are made of."""


@dataclass(frozen=True, kw_only=True)
class Differentiates(Closed):
    """The gradients that a backend gives; without arguments those of all its inputs.

    ``of`` names inputs, as ``RouterInputs`` does: a gradient of one that is listed and comes back
    as None counts as zeros. One that is not listed is judged where it comes back. A backend that
    takes logits has their gradient, and none of the gate, whatever is listed. Errors:
    ``ValueError`` naming the field.
    """

    of: tuple[str, ...] = OF_INPUTS

    def __post_init__(self) -> None:
        name = "Differentiates.of"
        check_values(name, self.of, one_of(name, GRADIENTS), repr(OF_INPUTS))


@dataclass(frozen=True, kw_only=True, eq=False)
class RouterGradients:
    """A router's gradients, native arrays of any library, and the routing that they belong to.

    The routing is that of the same call: which experts were chosen is part of what was
    differentiated, and a second call might choose others. Its layout is any that ``route`` may
    return. Gradients have the names and shapes of ``RouterInputs``. ``logits [T, E]`` is that of
    ``Routing.logits``: the very numbers that gate and hidden states get theirs from, so that these
    are judged from it; a rounded copy is left out. None means that there is none.
    """

    routing: Any
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
        return {name: getattr(self, name) for name in GRADIENTS if getattr(self, name) is not None}

"""What a backend with a method ``experts`` claims of it: activations, routes, sizes, products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from moe_routing.implementations.permitted import (
    ANY,
    AnyValue,
    Closed,
    check_values,
    one_of,
)
from moe_routing.implementations.permutes import ROUTES_AXES
from moe_routing.implementations.unsupported import Unsupported
from moe_routing.reference import EXPERT_GRADIENTS, ExpertsConfig, ExpertsInputs
from moe_routing.reference.activations import ACTIVATIONS, CLAMPED
from moe_routing.reference.checks import require_choice, require_count, require_real
from moe_routing.reference.experts import OF_EXPERTS, WEIGHT_ON
from moe_routing.reference.permutation_maps import has_repeats

Products = Literal["float32", "tf32"]

_EITHER = (False, True)
_KNOWN: dict[str, tuple[Any, ...]] = {
    "activations": ACTIVATIONS,
    "gated": _EITHER,
    "biases": _EITHER,
    "weight_on": WEIGHT_ON,
    "absent": _EITHER,
    "repeats": _EITHER,
    "gradients": EXPERT_GRADIENTS,
}


def _finite(inputs: ExpertsInputs, experts: Any) -> bool:
    """Return whether all that these experts hold is finite."""
    arrays = inputs.arrays()
    return all(np.isfinite(arrays[name][experts]).all() for name in OF_EXPERTS if name in arrays)


EXPERTS_AXES: dict[str, Callable[[Any], bool]] = {
    **ROUTES_AXES,
    "last_finite": lambda inputs: _finite(inputs, [-1]),
    "unchosen_finite": lambda inputs: _finite(
        inputs, np.setdiff1d(np.arange(inputs.num_experts), inputs.expert_ids)
    ),
}
"""What a region of a known divergence may name of a call of experts, and how it is read."""


def _positive(name: str) -> Callable[[Any], None]:
    """Return what checks that ``name`` lists numbers above 0."""

    def check(values: Any) -> None:
        for each in values:
            require_real(f"each value of {name}", each, above=0.0)

    return check


_MULTIPLES = ("hidden_multiple_of", "width_multiple_of")


@dataclass(frozen=True, kw_only=True)
class Computes(Closed):
    """The experts that a backend runs; without arguments all of them.

    Each axis lists its permitted values: ``activations``, ``gated``, ``biases`` (whether any
    come), ``weight_on`` what the routing weight scales, ``absent`` and ``repeats`` whether routes
    may be absent, and whether an expert may hold several slots of a token. ``limits`` and
    ``alphas`` are those of ``clamped-swiglu`` (``ANY``: all). ``products`` says
    what float32 products are made in: ``float32``, or ``tf32``, which rounds the operands to 11
    bits. ``gradients`` names the inputs that get one, where there is a method
    ``expert_gradients``. ``hidden_multiple_of`` and ``width_multiple_of`` are what H and F are
    multiples of; ``max_experts``, ``max_tokens`` and ``max_top_k`` are the sizes that it stops
    at. Errors: ``ValueError`` naming the field.
    """

    activations: tuple[str, ...] = ACTIVATIONS
    gated: tuple[bool, ...] = _EITHER
    biases: tuple[bool, ...] = _EITHER
    weight_on: tuple[str, ...] = WEIGHT_ON
    absent: tuple[bool, ...] = _EITHER
    repeats: tuple[bool, ...] = _EITHER
    limits: tuple[float, ...] | AnyValue = ANY
    alphas: tuple[float, ...] | AnyValue = ANY
    products: Products = "float32"
    gradients: tuple[str, ...] = EXPERT_GRADIENTS
    hidden_multiple_of: int = 1
    width_multiple_of: int = 1
    max_experts: int | None = None
    max_tokens: int | None = None
    max_top_k: int | None = None

    def __post_init__(self) -> None:
        for axis, values in _KNOWN.items():
            name = f"Computes.{axis}"
            check_values(name, getattr(self, axis), one_of(name, values), repr(values))
        for axis, example in (("limits", "(7.0,)"), ("alphas", "(1.702,)")):
            name, known = f"Computes.{axis}", (tuple, AnyValue)
            check_values(name, getattr(self, axis), _positive(name), example, known)
        for axis in ("biases", "absent", "repeats"):
            if False not in getattr(self, axis):
                raise ValueError(
                    f"Expected Computes.{axis} to list False but got {getattr(self, axis)}: "
                    "calls without any are always claimed"
                )
        if self.activations == (CLAMPED,) and True not in self.gated:
            raise ValueError(f"Cannot have Computes.gated=(False,) with {CLAMPED!r}: it is gated")
        require_choice("Computes.products", self.products, get_args(Products))
        for name, value in vars(self).items():
            if name in _MULTIPLES or (name.startswith("max_") and value is not None):
                require_count(f"Computes.{name}", value, at_least=1)

    def refusals(self, config: ExpertsConfig, inputs: ExpertsInputs) -> list[str]:
        """Return what is not claimed of a call, one phrase each; empty: claimed."""
        values: dict[str, Any] = {
            "activations": config.activation,
            "gated": config.gated,
            "biases": inputs.has_biases,
            "weight_on": config.weight_on,
            "absent": bool((inputs.expert_ids < 0).any()),
            "repeats": has_repeats(inputs.routes),
        }
        if config.activation == CLAMPED:
            values |= {"limits": config.limit, "alphas": config.alpha}
        found = [f"{n}={v!r}" for n, v in values.items() if v not in getattr(self, n)]
        sizes = (
            ("num_experts", config.num_experts, self.max_experts),
            ("num_tokens", inputs.num_tokens, self.max_tokens),
            ("top_k", inputs.top_k, self.max_top_k),
        )
        found += [f"{name}={n} > {most}" for name, n, most in sizes if most and n > most]
        parts = (("H", inputs.hidden_size, _MULTIPLES[0]), ("F", inputs.width, _MULTIPLES[1]))
        steps = ((letter, n, getattr(self, name)) for letter, n, name in parts)
        return found + [f"{letter}={n} % {step} != 0" for letter, n, step in steps if n % step]

    def require(self, config: ExpertsConfig, inputs: ExpertsInputs) -> None:
        """Raise ``Unsupported`` for a call that is not claimed, saying why not."""
        if refused := self.refusals(config, inputs):
            raise Unsupported(f"not claimed: {', '.join(refused)}")

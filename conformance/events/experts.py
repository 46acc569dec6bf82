"""Events of experts: activations, biases, weights, loads, absent and poisoned experts, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.experts import Draft, drawn_widths
from moe_routing.conformance.judge.experts import Layer
from moe_routing.implementations import Capabilities
from moe_routing.reference import ExpertsConfig, experts
from moe_routing.reference.activations import ACTIVATIONS, CLAMPED
from moe_routing.reference.formats import INPUT_FORMATS, Bools, Ids

Occurs = Callable[[Layer], bool]

MIXED = ((2, 0), (0, 3), (3, 2), (0, 2))
"""Four tokens of two slots, for four experts of which one is empty; no two slots alike."""


def ran(
    slug: str,
    statement: str,
    occurs: Occurs,
    ids: Any = MIXED,
    *,
    count: int = 4,
    **parts: Any,
) -> None:
    """Register an event that a call with these experts shows, whatever it computes."""

    @event(f"ran-{slug}", statement, lambda layer: isinstance(layer, Layer) and occurs(layer))
    def _(capabilities: Capabilities) -> Iterator[ExpertsCase]:
        yield from cases(capabilities, np.array(ids, np.int64), count, **parts)


def cases(
    capabilities: Capabilities,
    ids: Ids,
    count: int,
    *,
    activations: Sequence[str] = ("relu", "silu", *ACTIVATIONS),
    values: Sequence[str] = ("eighths", "normal"),
    biased: Sequence[bool] = (False,),
    limit: float = 0.5,
    alpha: float = 1.702,
    sizes: tuple[int, int] = (4, 4),
    weight_on: Sequence[str] = ("output", "input"),
    gated: Sequence[bool] = (True, False),
    **drafted: Any,
) -> Iterator[ExpertsCase]:
    """Yield cases with these experts that ``capabilities`` claim, the plainest first."""
    computes = capabilities.computes
    hidden, width = (drawn_widths(n, step) for n, step in zip(sizes, _steps(computes), strict=True))
    axes = product(dict.fromkeys(activations), gated, weight_on, biased, values, hidden, width)
    for activation, gate, on, bias, kind, h, f in axes:
        if activation == CLAMPED and not gate:
            continue
        config = ExpertsConfig(
            num_experts=count,
            activation=activation,
            gated=gate,
            weight_on=on,
            limit=_claimed(computes.limits, limit),
            alpha=_claimed(computes.alphas, alpha),
        )
        for dtype, seed in product(capabilities.dtypes, range(3)):
            rng = np.random.default_rng(seed)
            draft = Draft(rng, config, INPUT_FORMATS[dtype], kind, {"H": h, "F": f})
            case = draft.case(ids, biased=bias, **drafted)
            if computes.refusals(config, case.inputs):
                break
            yield replace(case, recipe="constructed")


def _claimed(permitted: Any, wanted: float) -> float:
    """Return what is wanted where that is claimed, or else the first of what is."""
    return wanted if wanted in permitted else float(permitted[0])


def _steps(computes: Any) -> tuple[int, int]:
    return computes.hidden_multiple_of, computes.width_multiple_of


# What is computed.


def _shows(layer: Layer, **changes: Any) -> bool:
    """Return whether the outputs of another configuration are out of what is permitted."""
    if not layer.inputs.num_tokens:
        return False
    other = experts(replace(layer.config, **changes), layer.inputs)
    return bool((~layer.output.contains(other) & np.isfinite(other)).any())


def _active(activation: str, layer: Layer) -> bool:
    """Return whether the activation is used, and the nearest other one would show."""
    others = {"gelu": "gelu-tanh", "gelu-tanh": "gelu", "silu": "gelu", "relu": "silu"}
    if layer.config.activation != activation:
        return False
    if activation == CLAMPED:
        return _shows(layer, limit=1e6) or _shows(layer, alpha=2.0 * layer.config.alpha)
    return _shows(layer, activation=others[activation])


for _name in ACTIVATIONS:
    ran(
        f"activation:{_name}",
        f"the activation {_name}, where the nearest other one would show",
        lambda layer, name=_name: _active(name, layer),  # type: ignore[misc]
        activations=(_name,),
    )
ran(
    "limit",
    "clamped-swiglu with a limit that gpt-oss's cannot stand for",
    lambda layer: layer.config.activation == CLAMPED and _shows(layer, limit=7.0),
    activations=(CLAMPED,),
)
ran(
    "alpha",
    "clamped-swiglu with an alpha that gpt-oss's cannot stand for",
    lambda layer: layer.config.activation == CLAMPED and _shows(layer, alpha=1.702),
    activations=(CLAMPED,),
    alpha=0.5,
)
FAMILIES["ran-activation"] = "an activation that the nearest other one cannot stand for"
ran(
    "gated",
    "a gate and up that may not be swapped",
    lambda layer: layer.config.gated and _swap_shows(layer),
    gated=(True,),
)
ran(
    "plain",
    "experts without a gate",
    lambda layer: not layer.config.gated and bool(layer.present.any()),
    gated=(False,),
)
ran(
    "biases",
    "a bias on every product, and weights that are not 1",
    lambda layer: _biased(layer) and _weighs(layer),
    biased=(True,),
)
ran(
    "weight-on-output",
    "the weight scales the output, and on the input it would show",
    lambda layer: layer.config.weight_on == "output" and _shows(layer, weight_on="input"),
    weight_on=("output",),
)
ran(
    "weight-on-input",
    "the weight scales the input, and on the output it would show",
    lambda layer: layer.config.weight_on == "input" and _shows(layer, weight_on="output"),
    weight_on=("input",),
)
ran(
    "exact",
    "an output that no honest order of operations rounds, the sum of several routes",
    lambda layer: bool((layer.exact & (several_of(layer) > 1)[:, None] & _nonzero(layer)).any()),
    activations=("relu",),
    values=("exact",),
    sizes=(8, 8),
)
ran(
    "square",
    "as many hidden columns as rows of an expert",
    lambda layer: layer.inputs.width == layer.inputs.hidden_size > 1 and _busy(layer),
)
ran(
    "half-as-wide",
    "twice as many hidden columns as rows of an expert, so that gate and up are square",
    lambda layer: 2 * layer.inputs.width == layer.inputs.hidden_size and _busy(layer),
    sizes=(4, 2),
)


def _busy(layer: Layer) -> bool:
    return bool(layer.present.any())


def several_of(layer: Layer) -> Ids:
    """Return how many routes of each token are present and weigh something, ``[T]``."""
    there = layer.present & (layer.inputs.weights != 0.0)
    found: Ids = there.sum(axis=1)
    return found


def _nonzero(layer: Layer) -> Bools:
    return np.asarray(layer.output.mid != 0.0)


def _swap_shows(layer: Layer) -> bool:
    inputs = layer.inputs
    swapped = with_changes(
        inputs,
        gate_weight=inputs.up_weight,
        up_weight=inputs.gate_weight,
        gate_bias=inputs.up_bias,
        up_bias=inputs.gate_bias,
    )
    return bool((~layer.output.contains(experts(layer.config, swapped))).any())


def _biased(layer: Layer) -> bool:
    inputs = layer.inputs
    gate = inputs.gate_bias if layer.config.gated else inputs.up_bias
    return all(each is not None and each.any() for each in (gate, inputs.up_bias, inputs.down_bias))


def _weighs(layer: Layer) -> bool:
    weights = layer.inputs.weights[layer.present]
    return bool(((weights != 0.0) & (weights != 1.0)).any())

"""Events of experts' gradients: activations, weights, biases, loads, absent routes, exact sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.expert_gradients import ExpertGradientCase
from moe_routing.conformance.events.experts import MIXED, cases, several_of
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.expert_gradients import exact_case, with_cotangent
from moe_routing.conformance.judge.expert_gradients import Learning
from moe_routing.implementations import Capabilities
from moe_routing.reference import expert_gradients
from moe_routing.reference.activations import ACTIVATIONS, CLAMPED
from moe_routing.reference.formats import Floats
from moe_routing.reference.permutation_maps import has_repeats

Occurs = Callable[[Learning], bool]

NEAREST = {"gelu": "gelu-tanh", "gelu-tanh": "gelu", "silu": "gelu", "relu": "silu"}
"""The activation that is most like each."""


def learned(
    slug: str,
    statement: str,
    occurs: Occurs,
    ids: Any = MIXED,
    *,
    count: int = 4,
    exact: bool = False,
    **parts: Any,
) -> None:
    """Register an event that gradients of these experts show, whatever they compute."""

    @event(f"learned-{slug}", statement, lambda each: isinstance(each, Learning) and occurs(each))
    def _(capabilities: Capabilities) -> Iterator[ExpertGradientCase]:
        for case in cases(capabilities, np.array(ids, np.int64), count, **parts):
            if exact:
                made = exact_case(np.random.default_rng(0), case)
                yield replace(made, recipe="constructed")
            else:
                yield with_cotangent(case)


def shows(learning: Learning, name: str, other: Any) -> bool:
    """Return whether another gradient of an input is out of what is permitted."""
    ball = learning.permitted[name]
    return bool((~ball.contains(other) & np.isfinite(other)).any())


def _of(learning: Learning, name: str, **changes: Any) -> Floats:
    """Return a gradient of the reference under another configuration."""
    config = replace(learning.config, **changes)
    found = expert_gradients(config, learning.inputs, learning.cotangent.astype(np.float32))
    return np.asarray(getattr(found, name))


def _busy(learning: Learning) -> bool:
    return bool(np.asarray(learning.reference.up_weight).any())


# What is computed.


def _active(activation: str, learning: Learning) -> bool:
    if learning.config.activation != activation:
        return False
    if activation == CLAMPED:
        return shows(learning, "up_weight", _of(learning, "up_weight", limit=1e6))
    return shows(learning, "up_weight", _of(learning, "up_weight", activation=NEAREST[activation]))


for _name in ACTIVATIONS:
    learned(
        f"activation:{_name}",
        f"gradients through {_name}, where the nearest other activation would show",
        lambda each, name=_name: _active(name, each),  # type: ignore[misc]
        activations=(_name,),
    )
FAMILIES["learned-activation"] = "gradients through an activation, which the nearest one cannot be"
learned(
    "gated",
    "gradients of a gate and of up that may not be swapped",
    lambda each: each.config.gated and shows(each, "up_weight", each.reference.gate_weight),
    gated=(True,),
)
learned(
    "plain",
    "gradients of experts without a gate",
    lambda each: not each.config.gated and _busy(each),
    gated=(False,),
)
learned(
    "biases",
    "gradients of biases, and one of a weight that the last bias is part of",
    lambda each: _biased(each),
    biased=(True,),
)
learned(
    "weight-on-output",
    "the weight scales the output, and a gradient as if it scaled the input would show",
    lambda each: each.config.weight_on == "output" and _on_other_side(each, "input"),
    weight_on=("output",),
)
learned(
    "weight-on-input",
    "the weight scales the input, and a gradient as if it scaled the output would show",
    lambda each: each.config.weight_on == "input" and _on_other_side(each, "output"),
    weight_on=("input",),
)
learned(
    "square",
    "as many hidden columns as rows of an expert, and a gradient that is not symmetric",
    lambda each: _turned_shows(each),
)


def _biased(learning: Learning) -> bool:
    inputs, config = learning.inputs, learning.config
    if inputs.down_bias is None or config.weight_on == "input":
        return inputs.down_bias is not None and _busy(learning)
    without = replace(inputs, down_bias=None)
    found = expert_gradients(config, without, learning.cotangent.astype(np.float32))
    return shows(learning, "weights", np.asarray(found.weights))


def _on_other_side(learning: Learning, side: str) -> bool:
    return shows(learning, "down_weight", _of(learning, "down_weight", weight_on=side))


def _turned_shows(learning: Learning) -> bool:
    made = np.asarray(learning.reference.down_weight)
    square = made.shape[1] == made.shape[2] > 1
    return square and shows(learning, "down_weight", made.swapaxes(1, 2))


# Routes.

learned(
    "several",
    "several experts have routes, and a token has several whose weights have gradients",
    lambda each: _several(each),
)
learned(
    "routes-above-256",
    "an expert with more than 256 routes, the last of which is seen in its gradient",
    lambda each: _last_shows(each),
    ids=np.tile([[1, 2]], (257, 1)),
)
learned(
    "row-offsets-past-16-bits",
    "a row, of all routes', that begins past number 65,536, and gradients of the last token",
    lambda each: (
        (int(each.layer.counts.sum()) - 1) * each.inputs.hidden_size >= 2**16
        and bool(_live(each)[-1])
    ),
    ids=np.tile([[1, 3]], (130, 1)),
    sizes=(256, 4),
)
learned(
    "repeated",
    "an expert in two slots of a token, and a gradient of it",
    lambda each: has_repeats(each.inputs.routes) and _busy(each),
    ids=((1, 1), (0, 1), (2, 2)),
    count=3,
)
learned(
    "zero-weight",
    "a present route of weight 0 whose expert answers something, beside others with gradients",
    lambda each: bool(each.skippable.any()) and bool(_live(each).any()),
    ids=((2, 0), (0, 3), (3, 2), (0, 2), (1, 3)),
    weights="zeros",
    weight_on=("output",),
)
learned(
    "some-absent",
    "a token with routes that are absent and others that have a gradient",
    lambda each: bool((~each.layer.present.all(axis=1) & _live(each)).any()),
    ids=((2, -1), (0, 3), (-1, 3), (3, 0)),
)
learned(
    "token-absent",
    "a token without routes whose cotangent is not 0, and another with routes",
    lambda each: _token_absent(each),
    ids=((2, 0), (-1, -1), (3, 2)),
)
learned(
    "absent-not-finite",
    "routes are absent, and the first and the last expert, which nobody chose, are not finite",
    lambda each: bool((~each.layer.present).any() and _live(each).any()) and _ends_wild(each),
    ids=((2, -1), (1, 2), (-1, 1), (-1, -1)),
    poison="nan",
)
learned(
    "empty",
    "an expert without routes among others that have gradients",
    lambda each: bool((each.layer.counts == 0).any()) and _busy(each),
    ids=((1, 2), (3, 1), (2, 3)),
)
learned(
    "unchosen-nan",
    "an expert that nobody chose holds NaN, and another has gradients",
    lambda each: bool(_wild(each).any()) and _busy(each),
    poison="nan",
)
learned(
    "no-tokens",
    "no tokens",
    lambda each: each.inputs.num_tokens == 0,
    ids=np.zeros((0, 2)),
)


def _live(learning: Learning) -> Any:
    """Return the tokens ``[T]`` of whose weights some have a gradient."""
    return np.asarray(learning.reference.weights).any(axis=1)


def _several(learning: Learning) -> bool:
    both = (np.asarray(learning.reference.weights) != 0.0).sum(axis=1) > 1
    many = (learning.layer.counts > 0).sum() > 1
    return bool(many and (both & (several_of(learning.layer) > 1)).any())


def _token_absent(learning: Learning) -> bool:
    lost = ~learning.layer.present.any(axis=1)
    return bool((lost & learning.cotangent.any(axis=1)).any()) and _busy(learning)


def _wild(learning: Learning) -> Any:
    """Return the experts ``[E]`` without routes that hold what is not finite."""
    wild = (~np.isfinite(learning.inputs.up_weight)).any(axis=(1, 2))
    return wild & (learning.layer.counts == 0)


def _ends_wild(learning: Learning) -> bool:
    return bool(_wild(learning)[[0, -1]].all())


def _last_shows(learning: Learning) -> bool:
    counts = learning.layer.counts
    if counts.max(initial=0) <= 256:
        return False
    expert = int(counts.argmax())
    tokens, slots = np.nonzero(learning.inputs.expert_ids == expert)
    ids = np.array(learning.inputs.expert_ids)
    ids[tokens[-1], slots[-1]] = -1
    weights = np.where(ids < 0, 0, learning.inputs.weights).astype(np.float32)
    fewer = replace(learning.inputs, expert_ids=ids, weights=weights)
    found = expert_gradients(learning.config, fewer, learning.cotangent.astype(np.float32))
    return shows(learning, "down_weight", np.asarray(found.down_weight))

"""Why a gradient of experts is wrong, in words: where, what is permitted, what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.explain.experts import call_line
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.gradients import of_cotangent, summary_of
from moe_routing.conformance.explain.numbers import show
from moe_routing.conformance.judge.expert_gradients import Learning
from moe_routing.conformance.judge.gradients import Judged
from moe_routing.reference import ExpertsConfig, ExpertsInputs, expert_gradients
from moe_routing.reference.formats import Bools, Floats

_SHOWN = 8
"""The routes that are listed, at the most."""

_PAIRS = {
    "gate_weight": "up_weight",
    "up_weight": "gate_weight",
    "gate_bias": "up_bias",
    "up_bias": "gate_bias",
}
"""The gradients of one shape that a kernel may mix up."""

Reading = tuple[str, ExpertsConfig, ExpertsInputs]


def expert_gradient_failure(
    stage: str, learning: Learning, judged: Judged, wrong: Bools
) -> Failure:
    """Return the failure of the first number of a gradient that is ``wrong``, with its story."""
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    details = [f"call    {call_line(learning.layer)}"]
    details.append(f"scalar    sum of output[t, h] * G[t, h], G {of_cotangent(learning.cotangent)}")
    if found := missing(learning, judged, place):
        details.append(f"factor    {found}")
    return Failure(
        stage=stage,
        token=place[0] if judged.name in ("hidden", "weights") else None,
        summary=summary_of(judged, place),
        details=(*details, *_routes(learning, judged, place)),
    )


def _routes(learning: Learning, judged: Judged, place: tuple[int, ...]) -> Iterator[str]:
    """Yield a line for each route that the number is of, or that is in its sum."""
    inputs = learning.inputs
    routes = _in_the_sum(learning, judged, place)
    if not len(routes):
        yield "routes    none: nothing is in the sum"
        return
    heads = f"{'token':>5} {'slot':>4} {'expert':>6} {'weight':>10}"
    yield f"routes    {heads}   gradient of the weight"
    for t, k in routes[:_SHOWN]:
        due = np.asarray(learning.reference.weights)[t, k]
        expert, weight = int(inputs.expert_ids[t, k]), show(inputs.weights[t, k], 5)
        named = f"{expert:>6}" if expert >= 0 else "absent"
        yield f"{'':10}{t:>5} {k:>4} {named} {weight:>10}   {show(due, 7)}"
    if len(routes) > _SHOWN:
        yield f"{'':10}and {len(routes) - _SHOWN} more routes"


def _in_the_sum(learning: Learning, judged: Judged, place: tuple[int, ...]) -> Any:
    ids = learning.inputs.expert_ids
    if judged.name == "weights":
        return np.array([place])
    if judged.name == "hidden":
        return np.array([(place[0], k) for k in range(ids.shape[1])])
    return np.argwhere(ids == place[0])


def missing(learning: Learning, judged: Judged, place: tuple[int, ...]) -> str:
    """Return which factor or part explains the number that came back, in words, or nothing."""
    answered = float(judged.answered[place])
    if np.isnan(answered):
        return "NaN: an overflow, 0 times infinity, or memory that nobody wrote"
    mid, rad = float(judged.permitted.mid[place]), float(judged.permitted.rad[place])
    if answered == 0.0:
        part = _part(learning, judged, place, answered, rad)
        nothing = "0: nothing came back" if judged.given else "None: detached from its graph"
        return f"{nothing}, or {part}" if part and judged.given else nothing
    if not any(learning.layer.present[t, k] for t, k in _in_the_sum(learning, judged, place)):
        return "not 0: memory that nobody wrote, or a route that is not there"
    for words, factor in _factors(learning, judged, place):
        if abs(answered - factor * mid) <= abs(factor) * rad:
            return words
    return _part(learning, judged, place, answered, rad)


def _part(
    learning: Learning, judged: Judged, place: tuple[int, ...], answered: float, rad: float
) -> str:
    """Return what was left out or done otherwise, if that alone makes the number."""
    due = np.asarray(getattr(learning.reference, judged.name))[place]
    for words, config, inputs in _readings(learning, judged, place):
        found = expert_gradients(config, inputs, learning.cotangent.astype(np.float32))
        array = getattr(found, judged.name)
        if array is None:
            continue
        other = float(np.asarray(array)[place])
        if abs(answered - other) <= 2.0 * rad and abs(other - due) > 4.0 * rad:
            return words
    if (pair := _PAIRS.get(judged.name)) is not None:
        other_ball = learning.permitted.get(pair)
        if other_ball is not None and bool(other_ball[place].contains(answered)):
            return f"it is the gradient of {pair}"
    turned = _turned(learning, judged, place)
    if turned is not None and turned != due and abs(answered - turned) <= 2.0 * rad:
        return "the matrix is transposed"
    return ""


def _turned(learning: Learning, judged: Judged, place: tuple[int, ...]) -> float | None:
    array: Floats = np.asarray(getattr(learning.reference, judged.name))
    if array.ndim != 3 or array.shape[1] != array.shape[2]:
        return None
    return float(array[place[0], place[2], place[1]])


def _factors(
    learning: Learning, judged: Judged, place: tuple[int, ...]
) -> Iterator[tuple[str, float]]:
    yield "the sign: it is the negative of what is due", -1.0
    yield "half of it: what is due is twice as much", 0.5
    yield "twice as much as is due", 2.0
    routes = _in_the_sum(learning, judged, place)
    if len(routes) == 1 and (weight := float(learning.inputs.weights[tuple(routes[0])])):
        yield f"the route's weight, {show(weight)}, is missing", 1.0 / weight
        yield f"the route's weight, {show(weight)}, is in it once too often", weight
    if (slots := learning.inputs.top_k) > 1:
        yield f"top_k={slots} is in it once too often", float(slots)
        yield f"it is divided by top_k={slots}", 1.0 / slots


def _readings(learning: Learning, judged: Judged, place: tuple[int, ...]) -> Iterator[Reading]:
    """Yield each of several mistakes: its words, and the call whose gradients it gives."""
    config, inputs = learning.config, learning.inputs
    for t, k in _in_the_sum(learning, judged, place)[: 2 * _SHOWN]:
        if inputs.expert_ids[t, k] >= 0 and judged.name != "weights":
            yield f"token {t}'s slot {k} is missing", config, _without(inputs, t, k)
    ones = np.where(inputs.expert_ids < 0, 0, np.ones_like(inputs.weights))
    yield "the routing weights are missing", config, replace(inputs, weights=ones)
    if inputs.down_bias is not None:
        yield "the expert's last bias is missing", config, with_changes(inputs, down_bias=None)
    forms: dict[str, Any] = {"gelu": "gelu-tanh", "gelu-tanh": "gelu", "silu": "gelu"}
    if (instead := forms.get(config.activation)) is not None:
        yield f"it is the slope of {instead}", replace(config, activation=instead), inputs
    if inputs.gate_weight is not None:
        swapped = {"gate_weight": inputs.up_weight, "up_weight": inputs.gate_weight}
        biases = {"gate_bias": inputs.up_bias, "up_bias": inputs.gate_bias}
        yield "gate and up are swapped", config, with_changes(inputs, **swapped, **biases)


def _without(inputs: ExpertsInputs, t: int, k: int) -> ExpertsInputs:
    ids, weights = np.array(inputs.expert_ids), np.array(inputs.weights)
    ids[t, k], weights[t, k] = -1, 0.0
    return replace(inputs, expert_ids=ids, weights=weights)

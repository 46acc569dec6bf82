"""Why an output of experts is wrong, in words: the call, the slots, what it looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.explain.failure import Failure, at
from moe_routing.conformance.explain.numbers import show, span
from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.experts import Layer
from moe_routing.reference import ExpertsConfig, ExpertsInputs, experts
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.formats import Bools, Floats, Ids

_SHOWN = 8
"""The slots of a token that are shown."""


def experts_failure(
    clause: str, layer: Layer, output: Floats, wrong: Bools, due: Ball | None = None
) -> Failure:
    """Return the failure at the first of the outputs that are ``wrong [T, H]``.

    ``due`` are the outputs that it is held to, where those are not the layer's.
    """
    due = due or layer.output
    t, h = (int(i) for i in np.argwhere(wrong)[0])
    return Failure(
        stage=clause,
        token=t,
        summary=f"{at('output', t, h)}={show(output[t, h])}, but should be {permitted(due, t, h)}",
        details=(call_line(layer), *slot_lines(layer, t, h), *_looks(layer, output, t)),
    )


def call_line(layer: Layer) -> str:
    """Return the sizes of a call, what its experts compute, and the dtype."""
    config, inputs = layer.config, layer.inputs
    sizes = f"T={inputs.num_tokens} (E={inputs.num_experts} K={inputs.top_k} "
    sizes += f"H={inputs.hidden_size} F={inputs.width})"
    gate = "gated" if config.gated else "no gate"
    biases = ", biases" if inputs.has_biases else ""
    made = f"{config.activation}, {gate}{biases}, weight on the {config.weight_on}"
    return f"{sizes}: {made}; {inputs.dtype}"


def permitted(due: Ball, t: int, h: int) -> str:
    """Return what an output may be, in words."""
    mid, rad = float(due.mid[t, h]), float(due.rad[t, h])
    if rad == 0.0:
        return f"exactly {show(mid)}"
    return f"in {span((mid - rad, mid + rad))}"


def slot_lines(layer: Layer, t: int, h: int) -> Iterator[str]:
    """Yield a line a slot of the token: its expert, row, weight, what it adds to this output.

    Its row is that of the routes sorted by expert, which most backends gather.
    """
    inputs, rows = layer.inputs, sorted_rows(layer.inputs.expert_ids)
    yield f"token {t:<4}  slot  expert     row     weight  its answer [{h}]   adds"
    for k in range(min(inputs.top_k, _SHOWN)):
        expert, weight = int(inputs.expert_ids[t, k]), float(inputs.weights[t, k])
        if expert < 0:
            yield f"{'':12}{k:>4}  absent"
            continue
        answer = float(layer.answers[t, k, h])
        adds = added(layer, t, k, h)
        numbers = f"{k:>4}  {expert:>6}  {rows[t, k]:>6}  {show(weight):>9}  {show(answer):>14}"
        yield f"{'':12}{numbers}   {show(adds)}"
    if inputs.top_k > _SHOWN:
        yield f"{'':12}and {inputs.top_k - _SHOWN} more slots"


def sorted_rows(expert_ids: Ids) -> Ids:
    """Return the row of each route, ``[T, K]``, where those that are there are sorted by expert."""
    flat = expert_ids.reshape(-1)
    rows = np.empty(flat.shape, np.int64)
    rows[np.argsort(flat, kind="stable")] = np.arange(flat.size) - np.count_nonzero(flat < 0)
    return rows.reshape(expert_ids.shape)


def added(layer: Layer, t: int, k: int, h: int) -> float:
    """Return what a slot adds to an output, exactly."""
    weight, answer = float(layer.inputs.weights[t, k]), float(layer.answers[t, k, h])
    if layer.config.weight_on == "input":
        return answer
    return 0.0 if weight == 0.0 else weight * answer


def _looks(layer: Layer, output: Floats, t: int) -> Iterator[str]:
    """Yield one line that says what the token's output is within rounding of, if anything is."""
    if (leak := _leak(layer, output, t)) is not None:
        yield f"looks     as if {leak}"
        return
    for words, other in _readings(layer, t):
        ball, decided = layer.output[t], layer.output[t].decided
        apart = np.abs(other - ball.mid) > 2.0 * ball.rad
        with np.errstate(invalid="ignore"):
            near = np.abs(output[t] - other) <= 2.0 * ball.rad + np.spacing(np.abs(other)) * 4
        if (near | ~decided).all() and (apart & decided).any():
            yield f"looks     as if {words}"
            return


def _leak(layer: Layer, output: Floats, t: int) -> str | None:
    """Return which expert a number that is not finite may be from, where none of the token's is."""
    if not (layer.output.decided[t] & ~np.isfinite(output[t])).any():
        return None
    inputs = layer.inputs
    for expert in np.setdiff1d(np.arange(inputs.num_experts), inputs.expert_ids[t]):
        for name in OF_EXPERTS:
            held = getattr(inputs, name)
            if held is not None and not np.isfinite(held[expert]).all():
                bad = held[expert][~np.isfinite(held[expert])][0]
                return f"expert {expert}, which is in no slot of it, leaked: its {name} holds {bad}"
    return None


def _readings(layer: Layer, t: int) -> Iterator[tuple[str, Floats]]:
    """Yield what the token's output would be after each of several mistakes, with its words."""
    inputs = layer.inputs
    right = layer.output.mid[t]
    parts = np.array(
        [[added(layer, t, k, h) for h in range(len(right))] for k in _present(layer, t)]
    )
    for k, part in zip(_present(layer, t), parts, strict=True):
        named = f"slot {k} (expert {inputs.expert_ids[t, k]})"
        yield f"{named} were lost", right - part
        yield f"{named} were added twice", right + part
    row = _row(inputs, t)
    for words, config, changed in _mistakes(layer.config, row):
        yield words, experts(config, changed)[0]


def _present(layer: Layer, t: int) -> Sequence[int]:
    found: list[int] = np.flatnonzero(layer.present[t]).tolist()
    return found[:_SHOWN]


def _row(inputs: ExpertsInputs, t: int) -> ExpertsInputs:
    rows = {name: getattr(inputs, name)[t : t + 1] for name in ("hidden", "expert_ids", "weights")}
    return with_changes(inputs, **rows)


def _mistakes(
    config: ExpertsConfig, row: ExpertsInputs
) -> Iterator[tuple[str, ExpertsConfig, ExpertsInputs]]:
    there = row.expert_ids >= 0
    other: Any = "input" if config.weight_on == "output" else "output"
    yield f"the weight scaled the {other}", replace(config, weight_on=other), row
    ones = np.where(there, np.float32(1), np.float32(0))
    yield "no weight were applied", config, replace(row, weights=ones)
    yield "the weight were applied twice", config, _squared(row)
    forms: dict[str, Any] = {"gelu": "gelu-tanh", "gelu-tanh": "gelu", "silu": "gelu"}
    if (instead := forms.get(config.activation)) is not None:
        words = f"the activation were {instead}"
        yield words, replace(config, activation=instead), row
    if row.gate_weight is not None:
        swapped = {"gate_weight": row.up_weight, "up_weight": row.gate_weight}
        biases = {"gate_bias": row.up_bias, "up_bias": row.gate_bias}
        yield "gate and up were swapped", config, with_changes(row, **swapped, **biases)
    if row.has_biases:
        yield (
            "there were no biases",
            config,
            replace(row, gate_bias=None, up_bias=None, down_bias=None),
        )


def _squared(row: ExpertsInputs) -> ExpertsInputs:
    """Return the row with squared weights, in float32, which holds what 16 bits may not."""
    return replace(row, weights=row.weights * row.weights, dtype="float32")

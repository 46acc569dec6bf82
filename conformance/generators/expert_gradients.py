"""Calls of experts' gradients: a call of experts with a cotangent, and smaller ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.expert_gradients import ExpertGradientCase
from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.experts import Wishes, choose_experts_case
from moe_routing.conformance.generators.gradients import COTANGENTS
from moe_routing.conformance.generators.reducer import Reduction
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import INPUT_FORMATS, FloatFormat

Array = npt.NDArray[np.float32]

_KINDS = ("quarters", "quarters", "one-expert", "large", "small")
"""The distributions of cotangents; of ``one-expert`` one column of each token alone counts."""


def choose_expert_gradient_case(
    choose: Choose, capabilities: Capabilities, wishes: Wishes | None = None
) -> ExpertGradientCase:
    """Return a call of experts with a cotangent, made by choices."""
    case = choose_experts_case(choose, capabilities, wishes)
    rng = np.random.default_rng(choose("seed", range(2**16)))
    if case.recipe == "exact":
        return exact_case(rng, case)
    kind = choose("cotangent", _KINDS)
    drawn = COTANGENTS[kind](rng, case.inputs.hidden.shape)
    return ExpertGradientCase.of(case, drawn.astype(np.float32))


def exact_case(rng: np.random.Generator, case: ExpertsCase) -> ExpertGradientCase:
    """Return a call whose gradients no order of sums rounds, in many numbers.

    Everything is a small integer or a half, and no product before an activation is 0, where ReLU
    has no slope: the first column of hidden states is 1, and that of gate and up a half off. The
    first token comes once more at the end with a large cotangent taken away that it has at first,
    so that partial sums over tokens need more bits than 16-bit formats have.
    """
    inputs, form = case.inputs, INPUT_FORMATS[case.dtype]
    made: dict[str, Any] = {}
    for name, array in inputs.arrays().items():
        if array.dtype.kind == "f" and name != "weights":
            made[name] = _small(rng, name, array.shape)
    cotangent = rng.integers(-2, 3, inputs.hidden.shape).astype(np.float32)
    weights, ids = np.array(inputs.weights), np.array(inputs.expert_ids)
    if inputs.num_tokens > 1:
        for array in (made["hidden"], weights, ids):
            array[-1] = array[0]
        large = _large(form) * rng.integers(1, 3, inputs.hidden_size)
        cotangent[0], cotangent[-1] = large, -large
    poisoned = inputs.arrays()
    for name, array in made.items():
        wild = ~np.isfinite(poisoned[name])
        array[wild] = poisoned[name][wild]
    changed = replace(inputs, **made, expert_ids=ids, weights=weights)
    return ExpertGradientCase.of(replace(case, inputs=changed), cotangent)


def _large(form: FloatFormat) -> float:
    """Return what a format holds nothing odd next to, times 4."""
    return float(2.0 ** min(form.precision + 2, 12))


def _small(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    """Draw integers from -1 to 1, three of a row; the first column is 1, or an odd half."""
    values = rng.integers(-1, 2, shape) * (rng.random(shape) < 3.0 / shape[-1])
    made = values.astype(np.float64)
    if name == "hidden":
        made[..., 0] = 1.0
    elif name in ("gate_weight", "up_weight"):
        made[..., 0] = rng.choice([-1.5, -0.5, 0.5, 1.5], shape[:-1])
    return made.astype(np.float32)


def plain_cotangent(tokens: int, size: int) -> Array:
    """Return the cotangent of constructed cases: quarters, no two neighbours alike, none 0."""
    t, h = np.arange(tokens)[:, None], np.arange(size)
    return ((((t * 5 + h * 3) % 11 - 5) + 0.5) / 4.0).astype(np.float32)


def with_cotangent(case: ExpertsCase) -> ExpertGradientCase:
    """Return a call of experts with the cotangent of constructed cases."""
    inputs = case.inputs
    return ExpertGradientCase.of(case, plain_cotangent(inputs.num_tokens, inputs.hidden_size))


# Smaller cases.


def _one_token(case: ExpertGradientCase) -> Iterator[ExpertGradientCase]:
    """Yield the case with cotangents of 0 but for one token, so that sums have one part."""
    busy = np.flatnonzero(case.inputs.cotangent.any(axis=1))
    for t in busy[:4] if len(busy) > 1 else ():
        alone = np.zeros_like(case.inputs.cotangent)
        alone[t] = case.inputs.cotangent[t]
        yield _with(case, alone)


def _one_column(case: ExpertGradientCase) -> Iterator[ExpertGradientCase]:
    """Yield the case with a cotangent of 1 in one column, or in all."""
    table = case.inputs.cotangent
    for h in range(min(table.shape[1], 8)):
        one = np.zeros_like(table)
        one[:, h] = 1.0
        if np.count_nonzero(table) > len(table):
            yield _with(case, one)
    if not np.array_equal(table, ones := np.ones_like(table)) and not set(np.unique(table)) <= {
        0,
        1,
    }:
        yield _with(case, ones)


def _with(case: ExpertGradientCase, cotangent: Array) -> ExpertGradientCase:
    return replace(case, inputs=with_changes(case.inputs, cotangent=cotangent))


EXPERT_GRADIENT_REDUCTIONS: tuple[Reduction, ...] = (_one_token, _one_column)
"""The reductions of the cotangent; those of calls of experts come after them."""

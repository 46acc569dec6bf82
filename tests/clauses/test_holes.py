"""Routers with one fault each, small enough to have slipped through a clause once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import select_clauses
from moe_routing.implementations import Capabilities, torch_inputs
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route


class Right:
    """The right answers, and a right dispatcher."""

    name = "right"

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        return route(config, inputs)


class FillsTheGaps(Right):
    """Writes whole padded rows: into the memory between the hidden states of its caller."""

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        hidden = torch_inputs(inputs).hidden
        rows = hidden.untyped_storage().nbytes() // hidden.element_size()
        if 0 < hidden.numel() < rows and not hidden.isnan().any():
            memory = hidden.as_strided((rows,), (1,), 0)
            memory[memory.isnan()] = 0.0
        return super().route(config, inputs)


class OverlooksStatics(Right):
    """Finds a selection bias on the gate and on the block, and no other."""

    def dispatch(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        found = inputs.selection_bias is not None and inputs.selection_bias_on != "statics"
        passed = inputs if found else replace(inputs, selection_bias=None)
        return route(replace(config, score="sigmoid" if found else "softmax"), passed)


class ChangesItsWeights(Right):
    """Does to the weights of every second call what is equal, but not the same bits."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change, self.calls = change, count()

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        right = super().route(config, inputs)
        weights = np.where(right.weights == 0.0, 0.0, right.weights).astype(np.float32)
        if next(self.calls) % 2:
            weights = self.change(weights)
        return replace(right, weights=weights, logits=None)


def checked(adapter: Right, clause: str) -> ClauseResult:
    (found,) = select_clauses([clause])
    return check_clause(adapter, found, Plan(clauses=(found,), max_examples=40))


@pytest.mark.parametrize(
    ("adapter", "clause", "words"),
    [
        (
            FillsTheGaps(),
            "invariance.inputs-unchanged",
            "changed its inputs: hidden (the memory between its elements)",
        ),
        (OverlooksStatics(), "dispatch.sigmoid-with-bias", "sigmoid is due"),
        (
            ChangesItsWeights(lambda weights: weights.astype(np.float64)),
            "invariance.repeatable",
            "weights has dtype float32, and float64 when the same call was repeated",
        ),
        (
            ChangesItsWeights(lambda weights: np.where(weights == 0.0, -0.0, weights)),
            "invariance.repeatable",
            "]=0.0, and -0.0 when the same call was repeated",
        ),
    ],
)
def test_it_is_caught(adapter: Right, clause: str, words: str) -> None:
    result = checked(adapter, clause)
    assert result.status == "fail", result.message
    assert words in result.message


class NanFirst(Right):
    """Its first weights are always NaN, the others change from call to call."""

    def __init__(self) -> None:
        self.calls = count()

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        right = super().route(config, inputs)
        weights = np.full(right.weights.shape, 0.25 * (1 + next(self.calls) % 2), np.float32)
        weights[:, :1] = np.nan
        return replace(right, weights=weights)


def test_where_answers_differ_is_named_next_to_a_nan() -> None:
    result = checked(NanFirst(), "invariance.repeatable")
    assert result.status == "fail"
    assert "weights[0, 1]=" in result.message

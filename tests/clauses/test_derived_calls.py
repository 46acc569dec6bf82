"""A call that a clause makes of its case is shown as it was made, next to the case in the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moe_routing.conformance import Case, Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.replay import replay_case
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route

ROWS = np.array([[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0]], np.float32)
CONFIG = RouterConfig(num_experts=4, top_k=2)
CASE = Case(config=CONFIG, inputs=RouterInputs(hidden=ROWS, gate_weight=np.eye(4)))
EMPTY = Case(config=CONFIG, inputs=RouterInputs(hidden=ROWS[:0], gate_weight=np.eye(4)))


class Careless:
    """Right."""

    name = "careless"

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        return route(RouterConfig(**vars(config)), inputs)


class AnswersBadGroups(Careless):
    """Ignores groups that do not fit."""

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        try:
            return super().route(config, inputs)
        except ValueError:
            return route(replace(config, groups=None, top_k=1), inputs)


class ForgetsAnAxis(Careless):
    """Gives no tokens back without the axis of the slots."""

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        right = super().route(config, inputs)
        return right if inputs.num_tokens else replace(right, weights=np.zeros((0,), np.float32))


class RaisesOnNan(Careless):
    """Holds its inputs to be finite."""

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        if np.isnan(inputs.hidden).any():
            raise FloatingPointError("NaN")
        return super().route(config, inputs)


def checked(adapter: Careless, clause: str) -> ClauseResult:
    found = CLAUSES[clause]
    return check_clause(adapter, found, Plan(clauses=(found,), max_examples=20))


def test_ragged_groups_are_shown_as_they_were_given() -> None:
    result = checked(AnswersBadGroups(), "groups.ragged-rejected")
    call, case, *_ = result.story
    assert "5 experts in 2 groups were answered" in result.message
    assert call.startswith("call    T=1 (H=1 E=5 K=1, float32): groups=Groups(count=2, kept=1")
    assert case.startswith("case    T=1 (H=1 E=5 K=1, float32): groups=Groups(count=1, kept=1")
    assert case.endswith(", from which the call was made")


def test_a_bad_configuration_is_shown_as_it_was_given() -> None:
    result = checked(AnswersBadGroups(), "robustness.rejects-bad-config")
    assert result.message.startswith("top_k=2 > num_experts=1 was answered")
    assert result.story[0].startswith("call    T=1 (H=1 E=1 K=2, float32): ")
    assert result.story[1].startswith("case    T=1 (H=1 E=1 K=1, float32): ")


@pytest.mark.parametrize(
    ("adapter", "clause", "status", "call"),
    [
        (ForgetsAnAxis(), "robustness.empty-batch", "error", "call    T=0 (H=4 E=4 K=2"),
        (RaisesOnNan(), "robustness.nan-row", "fail", "call    T=2 (H=4 E=4 K=2"),
        (RaisesOnNan(), "robustness.nan-row-apart", "error", "call    T=2 (H=4 E=4 K=2"),
    ],
)
def test_a_call_that_went_wrong_is_shown_before_the_case(
    adapter: Careless, clause: str, status: str, call: str
) -> None:
    replayed = replay_case(adapter, CLAUSES[clause], CASE)
    assert (replayed.status, replayed.details[0][: len(call)]) == (status, call)
    assert replayed.details[1].startswith("case    T=2 (H=4 E=4 K=2, float32): ")


@pytest.mark.parametrize("clause", ["layout.well-formed", "robustness.empty-batch"])
def test_the_call_of_the_case_itself_is_shown_once(clause: str) -> None:
    replayed = replay_case(ForgetsAnAxis(), CLAUSES[clause], EMPTY)
    assert replayed.details == ("call    T=0 (H=4 E=4 K=2, float32): the plain softmax router",)

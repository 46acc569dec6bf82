"""The chapter on repetition: what one call owes to the calls around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.calls.memory import Reused
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import select_clauses
from moe_routing.conformance.zoo import HONEST, MUTANTS
from moe_routing.implementations import Capabilities, load_adapter
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route

CAUGHT = {
    "ring-of-three-answers": "repetition.answers-stay",
    "ring-of-eight-answers": "repetition.answers-stay",
    "ring-of-sixteen-answers": "repetition.answers-stay",
    "gate-packed-once": "repetition.inputs-read-anew",
    "bias-packed-once": "repetition.inputs-read-anew",
    "scratch-shared-by-threads": "repetition.two-threads",
    "one-call-in-fifty": "repetition.every-time",
}


def checked(adapter: Any, id: str, **parts: Any) -> ClauseResult:
    (clause,) = select_clauses([id])
    return check_clause(adapter, clause, Plan(clauses=[clause], max_examples=10, **parts))


@pytest.mark.parametrize("name", CAUGHT)
def test_each_is_caught_by_the_clause_about_it(name: str) -> None:
    assert checked(MUTANTS[name].adapter(), CAUGHT[name]).status == "fail"


@pytest.mark.parametrize("name", ["gate-packed-while-unchanged", "scratch-of-each-thread"])
def test_what_is_kept_rightly_passes(name: str) -> None:
    results = [checked(HONEST[name].adapter(), id) for id in set(CAUGHT.values())]
    assert {each.status for each in results} <= {"pass", "unsupported"}


@pytest.mark.parametrize("name", ["reference", "torch"])
def test_shipped_adapters_that_claim_threads_pass_with_two(name: str) -> None:
    assert checked(load_adapter(name), "repetition.two-threads").status == "pass"


def test_threads_are_not_started_where_they_are_not_claimed() -> None:
    result = checked(HONEST["gate-packed-while-unchanged"].adapter(), "repetition.two-threads")
    assert result.status == "unsupported"


class Seldom:
    """Its n-th call is wrong."""

    name = "seldom"

    def __init__(self, wrong: int) -> None:
        self.calls, self.wrong = 0, wrong

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        right = route(config, inputs)
        self.calls += 1
        if self.calls != self.wrong:
            return right
        return Routing(expert_ids=right.expert_ids, weights=right.weights * np.float32(2))


def test_a_run_says_how_often_a_call_is_repeated() -> None:
    assert checked(Seldom(3_000), "repetition.every-time").status == "pass"
    found = checked(Seldom(3_000), "repetition.every-time", repeats=4_000, shrinks=False)
    assert "in call 3000 of the same" in found.message


def test_arrays_that_are_used_again_are_the_same_objects_with_other_values() -> None:
    first = RouterInputs(hidden=np.ones((2, 3)), gate_weight=np.ones((4, 3)))
    second = RouterInputs(hidden=np.zeros((2, 3)), gate_weight=np.full((4, 3), 2.0))
    arrays = Reused(first)
    one = arrays.holding(first)
    hidden = one.hidden
    assert hidden.all()
    assert not hidden.flags.writeable
    two = arrays.holding(second)
    assert two.hidden is hidden
    assert not hidden.any()
    assert (two.gate_weight == 2).all()
    assert first.hidden.all(), "the case itself is not written over"

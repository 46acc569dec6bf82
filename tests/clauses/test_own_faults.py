"""What goes wrong in the suite itself is reported as that: never as a verdict on a backend."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import count, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from nightly import SERIES, nightly

from moe_routing.conformance import Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.replay import replay_case
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.clauses.registry import Clause
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.judge import Interval, JudgeError
from moe_routing.conformance.zoo import HONEST
from moe_routing.conformance.zoo.census.matrix import Alarm, Task
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.implementations import BackendMissing, load_adapter
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route

REFERENCE = load_adapter("reference")
MATCH = CLAUSES["weights.match"]


def _above_two_experts(trial: Any) -> None:
    if trial.case.config.num_experts > 2:
        raise ZeroDivisionError("of ours")


def _cannot_draw(capabilities: Any) -> Any:
    return st.builds(lambda: 1 // 0)


def checked(clause: Clause) -> ClauseResult:
    return check_clause(REFERENCE, clause, Plan(clauses=(clause,), max_examples=20))


def test_a_clause_that_raises_is_an_error_with_its_line_and_its_smallest_case() -> None:
    result = checked(replace(MATCH, check=_above_two_experts))
    assert (result.status, result.failure) == ("error", None)
    words = (
        r"the suite itself went wrong: ZeroDivisionError: of ours at \S+\.py:\d+; please report it"
    )
    assert re.fullmatch(words, result.message)
    assert result.case.config.num_experts == 3


@pytest.mark.parametrize("parts", [{"strategy": _cannot_draw}, {"needs": lambda claims: 1 // 0}])
def test_a_fault_outside_of_any_case_is_an_error_without_one(parts: dict[str, Any]) -> None:
    result = checked(replace(MATCH, **parts))
    assert (result.status, result.case) == ("error", None)
    assert "ZeroDivisionError" in result.message


def test_bounds_of_nan_are_an_error_with_their_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise JudgeError("an interval has a NaN endpoint")

    monkeypatch.setattr(Interval, "checked", broken)
    result = checked(MATCH)
    assert result.status == "error"
    assert (
        "the suite itself went wrong: JudgeError: an interval has a NaN endpoint" in result.message
    )
    assert result.case is not None


def test_a_fault_that_does_not_come_again_says_nothing_of_the_backend_either() -> None:
    calls = count()

    def once(trial: Any) -> None:
        if next(calls) == 0:
            raise MemoryError("no memory left")

    result = checked(replace(MATCH, check=once))
    assert (result.status, result.failure) == ("error", None)
    assert "the suite itself went wrong: MemoryError: no memory left" in result.message


def test_a_replay_reports_it_as_well() -> None:
    case = EVENTS["any-case"].constructed(REFERENCE.capabilities())
    replayed = replay_case(REFERENCE, replace(MATCH, needs=lambda claims: 1 // 0), case)
    assert replayed.status == "error"
    assert "the suite itself went wrong: ZeroDivisionError" in replayed.message


def test_a_tensor_that_cannot_be_described_is_the_backends_own() -> None:
    class Sparse:
        name = "sparse"
        capabilities = REFERENCE.capabilities

        def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
            right = route(config, inputs)
            return replace(right, weights=torch.from_numpy(right.weights).to_sparse_csr())

    result = check_clause(Sparse(), MATCH, Plan(clauses=(MATCH,), max_examples=5))
    assert result.status == "error"
    assert result.message.startswith("malformed answer: weights cannot be read as an array: Sparse")


def test_a_missing_backend_is_none_of_our_faults() -> None:
    def lacks(trial: Any) -> None:
        raise BackendMissing("somelib is not installed: pip install somelib")

    with pytest.raises(BackendMissing, match="somelib"):
        checked(replace(MATCH, check=lacks))


def test_the_zoo_goes_on_and_reports_every_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLAUSES, MATCH.id, replace(MATCH, check=_above_two_experts))
    variants = tuple(name for name, each in HONEST.items() if each.makes is StagedRouter)[:3]
    found = Task(clause=MATCH.id, seed=0, max_examples=5, variants=variants).run()
    alarms = {each.variant: each.message for each in found if isinstance(each, Alarm)}
    assert set(alarms) == set(variants)
    assert all("the suite itself went wrong: ZeroDivision" in words for words in alarms.values())


SPOILT = ("weights", "logits")
NONSENSE = {
    "ids above E": lambda ids, experts: np.where(ids == ids.max(initial=0), experts, ids),
    "ids below 0": lambda ids, experts: np.where(ids == 0, -1, ids),
    "ids far off": lambda ids, experts: np.full_like(ids, -(2**62)),
    "one expert": lambda ids, experts: np.zeros_like(ids),
}


WEIGHTS = (None, np.nan, -np.inf)


def nonsense(clause: int) -> list[tuple[str, float | None]]:
    """Return all nonsense of ids, each with one of the weights in turn; at night with all."""
    in_turn = [(ids, WEIGHTS[(clause + n) % len(WEIGHTS)]) for n, ids in enumerate(NONSENSE)]
    return nightly(in_turn, [*product(NONSENSE, WEIGHTS)])


@pytest.mark.parametrize("ids", NONSENSE)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_no_answer_however_wrong_is_a_fault_of_ours(ids: str, weight: float | None) -> None:
    class Wrong:
        name = "wrong"
        capabilities = REFERENCE.capabilities

        def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
            right = route(config, inputs)
            wrong = NONSENSE[ids](np.asarray(right.expert_ids), config.num_experts)
            changed = replace(right, expert_ids=wrong)
            if weight is None:
                return changed
            spoilt = {name: np.full_like(getattr(right, name), weight) for name in SPOILT}
            return replace(changed, **spoilt)

    for number, clause in enumerate(CLAUSES.values()):
        if clause.method == "route" and (ids, weight) in nonsense(number):
            plan = Plan(clauses=(clause,), max_examples=3, series=nightly(SERIES, None))
            result = check_clause(Wrong(), clause, plan)
            assert "the suite itself" not in result.message, f"{clause.id}: {result.message}"

"""The smallest failure of a run: with a defined answer, and plain numbers, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Case, Plan
from moe_routing.conformance.cases.kinds import all_defined, facts_of
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.smallest import smallest_failure
from moe_routing.conformance.checking.target import Target
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.generators.construct import with_config
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.conformance.zoo.census.matrix import Kill
from moe_routing.conformance.zoo.census.smallest import smallest
from moe_routing.implementations import Capabilities
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs, Routing, stages


class Router:
    """The reference router, that repeats its first expert where something holds of a token."""

    name = "repeats"

    def __init__(self, wrong: Callable[[Any], np.ndarray]) -> None:
        self._wrong = wrong

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        done = stages(RouterConfig(**vars(config)), inputs)
        ids = np.where(self._wrong(done)[:, None], config.num_experts, done.expert_ids)
        return Routing(weights=done.weights, expert_ids=ids)


def shrunk(router: Router, case: Case, clause: str = "selection.in-range") -> Case:
    target = Target(router, CLAUSES[clause], Plan(clauses=[]))
    outcome = target.evaluate(case)
    assert outcome.broken
    small, after = smallest_failure(target, case, outcome)
    assert after.kind == outcome.kind
    return small


def defined(case: Any) -> bool:
    return all_defined(case, facts_of(case, Capabilities()))


def masked(*, lost: int = 5, tokens: int = 6, **config: Any) -> Case:
    """A call of a softmax over eight experts, some of which are lost to every token."""
    rows = np.arange(8.0 * tokens).reshape(tokens, 8) % 11 / 4.0
    logits = np.where(np.arange(8) < lost, -np.inf, rows)
    return Case(
        config=RouterConfig(num_experts=8, top_k=2, **config),
        inputs=RouterInputs.from_logits(logits),
    )


def loses_one(done: Any) -> np.ndarray:
    return np.isneginf(done.logits).any(axis=1)


class TestDefined:
    def test_a_lone_lost_expert_is_not_shown_where_two_fail_as_well(self) -> None:
        small = shrunk(Router(loses_one), masked())
        assert defined(small)
        assert small.size == "T=1 H=2 E=2 K=1"

    @pytest.mark.parametrize("score", ["softmax", "sigmoid"])
    def test_one_token_that_is_defined_is_found_among_many_that_are_not(self, score: str) -> None:
        case = masked(lost=3, score=score)
        hidden, gate = np.array(case.inputs.hidden), np.array(case.inputs.gate_weight)
        hidden[[0, 1, 2, 3, 5]] = np.nan
        inputs = RouterInputs(hidden=hidden, gate_weight=gate, gate_bias=case.inputs.gate_bias)
        case = replace(case, inputs=inputs)
        assert not defined(case)
        small = shrunk(Router(lambda done: ~np.isfinite(done.logits).all(axis=1)), case)
        assert defined(small)
        assert small.inputs.num_tokens == 1

    def test_what_fails_only_where_nothing_is_defined_gets_as_small_as_ever(self) -> None:
        case = masked(lost=8)
        small = shrunk(Router(lambda done: np.isnan(done.scores).all(axis=1)), case)
        assert not defined(small)
        assert small.size in ("T=1 H=1 E=1 K=1", "T=1 H=2 E=1 K=1")

    @pytest.mark.parametrize(("eps", "answered"), [(0.0, False), (1e-20, True)])
    def test_a_weight_that_is_no_number_is_no_answer_either(
        self, eps: float, answered: bool
    ) -> None:
        nothing = RouterInputs(hidden=[[1.0]], gate_weight=[[0.0]], gate_bias=[-np.inf])
        config = RouterConfig(
            num_experts=1, top_k=1, score="sigmoid", renormalize=Renormalize(eps=eps)
        )
        assert defined(Case(config=config, inputs=nothing)) == answered, "a score of 0, normed"

    def test_a_configuration_without_a_right_answer_has_none(self) -> None:
        case = masked(lost=0)
        assert defined(case)
        assert not defined(with_config(case, top_k=9))
        assert not defined(with_config(case, groups=Groups(count=3, kept=1)))

    def test_shared_experts_always_answer(self) -> None:
        assert defined(
            make_shared_case(
                kind="mlp", gated=False, dtype="float32", tokens=1, hidden=2, width=2, seed=0
            )
        )


class TestNumbers:
    @pytest.mark.parametrize(
        "bias",
        [[0.25, -np.inf, 0.5, -np.inf], [1e10, 2e10, -1e10, 0.0], [-3e4, -4e4, -5e4, -np.inf]],
        ids=["-inf", "1e10", "-30000"],
    )
    @pytest.mark.parametrize("given", [False, True], ids=["hidden states", "logits"])
    def test_a_bias_that_is_ignored_is_shown_with_small_numbers(
        self, bias: list[float], given: bool
    ) -> None:
        rows, floats = np.arange(12.0).reshape(3, 4) % 5, np.float32(bias)
        config = RouterConfig(num_experts=4, top_k=2, score="sigmoid")
        make = RouterInputs.from_logits if given else _through_a_gate
        case = Case(config=config, inputs=make(rows, selection_bias=floats))
        small = shrunk(MUTANTS["bias-ignored"].adapter(), case, clause="selection.valid-top-k")
        assert np.abs(small.inputs.selection_bias).max() <= 16.0, small.inputs.selection_bias
        assert np.abs(small.inputs.hidden).max() <= 2.0
        assert small.size == "T=1 H=2 E=2 K=1" if given else "T=1 H=1 E=2 K=1"


def _through_a_gate(rows: np.ndarray, **arrays: Any) -> RouterInputs:
    return RouterInputs(hidden=rows, gate_weight=np.eye(rows.shape[1]), **arrays)


def test_the_census_shows_what_a_run_shows() -> None:
    clause = CLAUSES["weights.scale"]
    mutant = MUTANTS["scale-skipped"]
    plan = Plan(clauses=[clause], max_examples=20)
    shown = check_clause(mutant.adapter(), clause, plan)
    first = Target(mutant.adapter(), clause, plan)
    case = next(
        case
        for event in clause.witnesses()
        if (case := event.constructed(first.narrowed)) and first.evaluate(case).broken
    )
    kill = Kill(mutant=mutant.name, clause=clause.id, seed=0, event="", drawn=0, case=case)
    found = smallest(kill)
    assert (shown.case.sizes["T"], shown.case.sizes["E"]) == (found.tokens, found.experts)

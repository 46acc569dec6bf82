"""The nearest mutants of a failing backend: a hint that is right, or none."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from nightly import SERIES

from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import select_clauses
from moe_routing.conformance.cli import main
from moe_routing.conformance.cli.hints import hints as advise
from moe_routing.conformance.zoo import HONEST, MUTANTS
from moe_routing.conformance.zoo.nearest import Likeness, nearest
from moe_routing.conformance.zoo.residents import WHOLE
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.implementations import Capabilities, Claim, load_adapter
from moe_routing.reference import Renormalize

DATA = Path(__file__).parents[1] / "data"

PLAN = Plan(clauses=select_clauses(["selection.*", "weights.*"]), max_examples=5, series=SERIES)


def results_of(router: StagedRouter) -> list[ClauseResult]:
    return [check_clause(router, clause, PLAN) for clause in PLAN.clauses]


@cache
def mutants(name: str) -> tuple[list[ClauseResult], Capabilities]:
    """What a mutant is found to do, and what it claims: once for all tests."""
    router = MUTANTS[name].adapter()
    return results_of(router), router.capabilities()


@cache
def hint_of(name: str) -> Likeness | None:
    return nearest(*mutants(name))


@pytest.mark.parametrize("name", ["bias-in-weights", "scale-twice", "bfloat16-bias"])
def test_a_backend_with_a_known_bug_behaves_like_its_mutant(name):
    found = hint_of(name)
    assert found is not None
    assert found.mutant == name
    assert found.cases > 1
    assert found.passed > 1


def test_the_hint_is_one_line():
    found = hint_of("scale-twice")
    assert found is not None
    assert found.words == (
        f"behaves like `scale-twice` (routed scaling factor applied twice): the same wrong answers "
        f"on all {found.cases} failing cases, right on all {found.passed} passing ones"
    )


def test_where_nothing_passes_no_mutant_is_named():
    router = MUTANTS["offset-not-subtracted"].adapter()
    results = [
        check_clause(router, c, PLAN) for c in select_clauses(["shards.union", "shards.sum"])
    ]
    assert {each.status for each in results} == {"fail"}
    alone = [replace(each, constructed=0) for each in results]
    assert nearest(alone, router.capabilities()) is None


def test_what_was_right_when_repeated_behaves_like_no_mutant():
    results, claims = mutants("scale-twice")
    at_times = [
        replace(each, failure=replace(each.failure, steady=False)) if each.failure else each
        for each in results
    ]
    assert hint_of("scale-twice")
    assert not nearest(at_times, claims)


def test_one_failing_case_is_too_little_to_go_by():
    router = MUTANTS["scale-twice"].adapter()
    results = [check_clause(router, clause, PLAN) for clause in select_clauses(["weights.scale"])]
    assert [each.status for each in results] == ["fail"]
    assert not nearest(results, router.capabilities())


def test_what_passes_past_an_edge_is_no_evidence():
    results, claims = mutants("bfloat16-bias")
    lenient = [
        replace(each, status="pass", failure=None, case=None, past=("scores-in-bfloat16",))
        if each.id == "selection.bias-placement"
        else each
        for each in results
    ]
    found = nearest(lenient, claims)
    assert found is not None
    assert found.mutant == "bfloat16-bias"


def test_no_hint_where_errors_outnumber_failures():
    results, claims = mutants("scale-twice")
    failing = [each for each in results if each.status == "fail"]
    error = replace(failing[0], status="error", failure=None, message="raised ValueError: no")
    assert nearest([*results, *[error] * len(failing)], claims)
    assert not nearest([*results, *[error] * (len(failing) + 1)], claims)


def test_no_hint_where_only_the_layout_is_broken():
    results, claims = mutants("scale-twice")
    malformed = [
        replace(each, failure=replace(each.failure, stage="layout")) if each.failure else each
        for each in results
    ]
    assert not nearest(malformed, claims)


def test_the_stage_alone_is_no_likeness(monkeypatch):
    """A router of hash tables that weighs them evenly, in a zoo without that bug."""
    name = "table-rows-weighted-evenly"
    router = MUTANTS[name].adapter()
    clauses = select_clauses(["weights.*", "scores.*"])
    plan = Plan(clauses=clauses, max_examples=5, series=SERIES)
    results = [check_clause(router, clause, plan) for clause in clauses]
    found = nearest(results, router.capabilities())
    assert found is not None
    assert found.mutant == name
    monkeypatch.delitem(MUTANTS, name)
    assert not nearest(results, router.capabilities())


@pytest.mark.parametrize("name", ["RaisesValueError", "Exits"])
def test_a_backend_that_raises_on_every_call_gets_one_hint(name):
    (words,) = hints_for(f"wrong_answers.py:{name}", "weights.*", "layout.*", "robustness.*")
    assert words.startswith("raises on every call: ")


def test_a_backend_of_malformed_answers_gets_one_hint():
    assert hints_for("wrong_answers.py:ReturnsTuple") == (
        "answers every call in a wrong form: route returned a tuple, not Routing, "
        "FlatRouting, RoutingMap or DenseRouting",
    )


def hints_for(adapter: str, *clauses: str) -> tuple[str, ...]:
    loaded = load_adapter(f"{DATA}/{adapter}")
    plan = Plan(clauses=select_clauses([*clauses]), max_examples=1, shrinks=False)
    results = [check_clause(loaded, clause, plan) for clause in plan.clauses]
    return advise(results, loaded.capabilities())


def test_a_backend_that_passes_has_no_hint():
    assert nearest(results_of(StagedRouter("plain", {}, WHOLE)), WHOLE) is None


def test_a_bug_like_no_other_has_no_hint():
    import numpy as np

    def weights(w):
        return w.scaled + np.float32(1000)

    assert nearest(results_of(StagedRouter("odd", {"weights": weights}, WHOLE)), WHOLE) is None


def test_a_run_names_the_bug_that_its_backend_behaves_like(tmp_path, capsys):
    adapter = tmp_path / "backend.py"
    adapter.write_text(
        "from moe_routing.conformance.zoo import MUTANTS\n"
        "Backend = MUTANTS['scale-twice'].adapter()\n"
    )
    report, cases, page = tmp_path / "report.json", tmp_path / "cases", tmp_path / "page.html"
    check = ["check", f"{adapter}:Backend", "--profile", "smoke", "--clause", "weights.*"]
    assert main([*check, "--json", str(report), "--cases", str(cases), "--html", str(page)]) == 1
    (words,) = json.loads(report.read_text())["adapters"][0]["hints"]
    assert words.startswith("behaves like `scale-twice` (routed scaling factor applied twice): ")
    assert f"scale-twice {words}" in capsys.readouterr().out
    assert "behaves like <code>scale-twice</code>" in page.read_text()


def test_a_green_run_has_no_hints(tmp_path):
    report = tmp_path / "report.json"
    words = ["check", "reference", "--profile", "smoke", "--clause", "weights.scale"]
    assert main([*words, "--json", str(report)]) == 0
    assert json.loads(report.read_text())["adapters"][0]["hints"] == []


def few_hints(router: StagedRouter, *globs: str) -> Likeness | None:
    """As ``hint``, on few clauses and hardly any drawn case."""
    clauses = select_clauses(globs)
    plan = Plan(clauses=clauses, max_examples=3, series=SERIES)
    results = [check_clause(router, clause, plan) for clause in clauses]
    return nearest(results, router.capabilities())


def test_two_bugs_at_once_have_no_hint():
    """Each mutant gives the wrong answers of some clauses, and neither gives those of all."""
    scale_twice, biased = (MUTANTS[name].stages for name in ("scale-twice", "bias-in-weights"))
    router = StagedRouter("both", {**scale_twice, **biased}, WHOLE)
    assert few_hints(router, "weights.unbiased", "weights.scale") is None


def test_a_scan_that_ends_before_the_last_expert_has_no_hint_of_another_family():
    loaded = load_adapter(f"{DATA}/wrong_adapters.py:LastExpertLost")
    found = few_hints(loaded, "selection.every-expert-can-win", "selection.k-equals-e")
    assert found is None or found.family == "M35"


def test_ties_that_the_bug_makes_may_be_broken_in_any_way():
    ties, bug = HONEST["ties-by-a-hash-of-the-row"].stages, MUTANTS["bfloat16-bias"]
    router = StagedRouter("like", {**ties, **bug.stages}, bug.claims)
    found = few_hints(router, "selection.bias-*", "selection.valid-top-k")
    assert found is not None
    assert found.mutant == "bfloat16-bias"


def test_a_norm_of_negative_weights_may_be_summed_with_their_signs():
    def signed(w):
        return w.gathered.sum(axis=1, keepdims=True)

    claim = Claim.plain(score=("sigmoid",), selection_bias=("gate",), renormalize=(Renormalize(),))
    stages = {"norm": signed, **MUTANTS["bias-in-weights"].stages}
    router = StagedRouter("like", stages, Capabilities(claims=(claim,)))
    found = few_hints(router, "weights.unbiased", "weights.tiny-norm")
    assert found is not None
    assert found.mutant == "bias-in-weights"

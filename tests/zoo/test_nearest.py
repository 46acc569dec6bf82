"""The nearest mutants of a failing backend: a hint that is right, or none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import select_clauses
from moe_routing.conformance.cli import main
from moe_routing.conformance.cli.hints import hints as advise
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.conformance.zoo.nearest import nearest
from moe_routing.conformance.zoo.residents import WHOLE
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.implementations import load_adapter

DATA = Path(__file__).parents[1] / "data"

PLAN = Plan(clauses=select_clauses(["selection.*", "weights.*"]), max_examples=20)


def hints(router: StagedRouter) -> list:
    results = [check_clause(router, clause, PLAN) for clause in PLAN.clauses]
    return list(nearest(results, router.capabilities()))


@pytest.mark.parametrize("name", ["bias-in-weights", "scale-twice", "bfloat16-bias"])
def test_a_backend_with_a_known_bug_behaves_like_its_mutant(name):
    found = hints(MUTANTS[name].adapter())
    assert name in [each.mutant for each in found]
    assert found[0].alike == found[0].cases > 1
    assert len(found) <= 3


def test_the_hint_is_one_line():
    (first, *_) = hints(MUTANTS["scale-twice"].adapter())
    assert first.words == (
        f"behaves like `scale-twice` (routed scaling factor applied twice): the same wrong answer "
        f"on {first.cases} of {first.cases} failing cases, right on {first.passed} of "
        f"{first.passed} passing ones"
    )


def test_what_was_right_when_repeated_behaves_like_no_mutant():
    router = MUTANTS["scale-twice"].adapter()
    results = [check_clause(router, clause, PLAN) for clause in PLAN.clauses]
    at_times = [
        replace(each, failure=replace(each.failure, steady=False)) if each.failure else each
        for each in results
    ]
    assert nearest(results, router.capabilities())
    assert not nearest(at_times, router.capabilities())


def test_one_failing_case_is_too_little_to_go_by():
    router = MUTANTS["scale-twice"].adapter()
    results = [check_clause(router, clause, PLAN) for clause in select_clauses(["weights.scale"])]
    assert [each.status for each in results] == ["fail"]
    assert not nearest(results, router.capabilities())


def test_what_passes_past_an_edge_is_no_evidence():
    router = MUTANTS["bfloat16-bias"].adapter()
    results = [check_clause(router, clause, PLAN) for clause in PLAN.clauses]
    lenient = [
        replace(each, status="pass", failure=None, case=None, past=("scores-in-bfloat16",))
        if each.id == "selection.bias-placement"
        else each
        for each in results
    ]
    assert "bfloat16-bias" in [each.mutant for each in nearest(lenient, router.capabilities())]


def test_no_hint_where_errors_outnumber_failures():
    router = MUTANTS["scale-twice"].adapter()
    results = [check_clause(router, clause, PLAN) for clause in PLAN.clauses]
    failing = [each for each in results if each.status == "fail"]
    error = replace(failing[0], status="error", failure=None, message="raised ValueError: no")
    assert nearest([*results, *[error] * len(failing)], router.capabilities())
    assert not nearest([*results, *[error] * (len(failing) + 1)], router.capabilities())


def test_no_hint_where_only_the_layout_is_broken():
    router = MUTANTS["scale-twice"].adapter()
    results = [check_clause(router, clause, PLAN) for clause in PLAN.clauses]
    malformed = [
        replace(each, failure=replace(each.failure, stage="layout")) if each.failure else each
        for each in results
    ]
    assert not nearest(malformed, router.capabilities())


def test_the_stage_alone_is_no_likeness(monkeypatch):
    """A router of hash tables that weighs them evenly, in a zoo without that bug."""
    name = "table-rows-weighted-evenly"
    router = MUTANTS[name].adapter()
    clauses = select_clauses(["weights.*", "scores.*"])
    plan = Plan(clauses=clauses, max_examples=20)
    results = [check_clause(router, clause, plan) for clause in clauses]
    assert name in [each.mutant for each in nearest(results, router.capabilities())]
    monkeypatch.delitem(MUTANTS, name)
    assert not nearest(results, router.capabilities())


@pytest.mark.parametrize("name", ["RaisesValueError", "Exits"])
def test_a_backend_that_raises_on_every_call_gets_one_hint(name):
    (words,) = hints_for(f"wrong_answers.py:{name}", "weights.*", "layout.*", "robustness.*")
    assert words.startswith("raises on every call: ")


def test_a_backend_of_malformed_answers_gets_one_hint():
    assert hints_for("wrong_answers.py:ReturnsTuple") == (
        "answers every call in a wrong form: route returned a tuple, but should return Routing, "
        "FlatRouting or RoutingMap",
    )


def hints_for(adapter: str, *clauses: str) -> tuple[str, ...]:
    loaded = load_adapter(f"{DATA}/{adapter}")
    plan = Plan(clauses=select_clauses([*clauses]), max_examples=1)
    results = [check_clause(loaded, clause, plan) for clause in plan.clauses]
    return advise(results, loaded.capabilities())


def test_a_backend_that_passes_has_no_hint():
    assert hints(StagedRouter("plain", {}, WHOLE)) == []


def test_a_bug_like_no_other_has_no_hint():
    import numpy as np

    def weights(w):
        return w.scaled + np.float32(1000)

    assert hints(StagedRouter("odd", {"weights": weights}, WHOLE)) == []


def test_a_run_names_the_bug_that_its_backend_behaves_like(tmp_path, capsys):
    adapter = tmp_path / "backend.py"
    adapter.write_text(
        "from moe_routing.conformance.zoo import MUTANTS\n"
        "Backend = MUTANTS['scale-twice'].adapter()\n"
    )
    report, cases, page = tmp_path / "report.json", tmp_path / "cases", tmp_path / "page.html"
    words = ["check", f"{adapter}:Backend", "--profile", "smoke", "--clause", "weights.*"]
    assert main([*words, "--json", str(report), "--cases", str(cases), "--html", str(page)]) == 1
    (hint,) = json.loads(report.read_text())["adapters"][0]["hints"]
    assert hint.startswith("behaves like `scale-twice` (routed scaling factor applied twice): ")
    assert f"scale-twice {hint}" in capsys.readouterr().out
    assert "behaves like <code>scale-twice</code>" in page.read_text()


def test_a_green_run_has_no_hints(tmp_path):
    report = tmp_path / "report.json"
    words = ["check", "reference", "--profile", "smoke", "--clause", "weights.scale"]
    assert main([*words, "--json", str(report)]) == 0
    assert json.loads(report.read_text())["adapters"][0]["hints"] == []

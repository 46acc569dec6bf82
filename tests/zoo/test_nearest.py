"""The nearest mutants of a failing backend: a hint that is right, or none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import select_clauses
from moe_routing.conformance.cli import main
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.conformance.zoo.nearest import nearest
from moe_routing.conformance.zoo.residents import WHOLE
from moe_routing.conformance.zoo.router.router import StagedRouter

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
        f"behaves like `scale-twice` (routed scaling factor applied twice), "
        f"on {first.cases} of {first.cases} failing cases"
    )


def test_what_was_right_when_repeated_behaves_like_no_mutant():
    router = MUTANTS["scale-twice"].adapter()
    results = [check_clause(router, clause, PLAN) for clause in select_clauses(["weights.scale"])]
    at_times = [replace(each, failure=replace(each.failure, steady=False)) for each in results]
    assert nearest(results, router.capabilities())
    assert not nearest(at_times, router.capabilities())


def test_a_mutant_that_answers_the_same_is_nearer_than_one_that_fails_more_cases(monkeypatch):
    alike = {"bias-ignored": (6, 0), "groups-ranked-without-bias": (5, 5)}  # stages, and words
    monkeypatch.setattr(
        "moe_routing.conformance.zoo.nearest._alike",
        lambda mutant, failing: alike.get(mutant.name, (0, 0)),
    )
    (found,) = hints(MUTANTS["scale-twice"].adapter())
    assert (found.mutant, found.alike, found.cases) == ("groups-ranked-without-bias", 5, 6)


def test_a_backend_that_passes_has_no_hint():
    assert hints(StagedRouter("plain", {}, WHOLE)) == []


def test_a_bug_like_no_other_has_no_hint():
    import numpy as np

    def weights(w):
        return w.scaled + np.float32(1000)

    found = hints(StagedRouter("odd", {"weights": weights}, WHOLE))
    assert all(each.alike > each.cases / 2 for each in found)


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
    assert hint.startswith("behaves like `scale-twice` (routed scaling factor applied twice), on ")
    assert f"scale-twice {hint}" in capsys.readouterr().out
    assert "behaves like `scale-twice`" in page.read_text()


def test_a_green_run_has_no_hints(tmp_path):
    report = tmp_path / "report.json"
    words = ["check", "reference", "--profile", "smoke", "--clause", "weights.scale"]
    assert main([*words, "--json", str(report)]) == 0
    assert json.loads(report.read_text())["adapters"][0]["hints"] == []

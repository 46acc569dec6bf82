"""Gating: what changed between reports, the floor, the seed, kept cases."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from nightly import nightly

from moe_routing.conformance.checking.profiles import PROFILES
from moe_routing.conformance.cli import _parsed, configured, gating, main
from moe_routing.conformance.report.diff import ReportError, compare, load_report

pytestmark = pytest.mark.usefixtures("without_hints")

DATA = Path(__file__).parents[1] / "data"
WRONG = f"{DATA}/wrong_adapters.py:BiasedWeights"
ROUTER = f"{DATA}/wrong_adapters.py:Router"
QUICK = (
    "--clause=selection.bias-placement",
    "--clause=weights.unbiased",
    "--max-examples=2",
    "--no-isolate",
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path) -> Iterator[None]:
    with chdir(tmp_path):  # no patch, after which constructed cases are made anew
        yield


def check(*argv: str) -> int:
    return main(["check", *argv])


def read(name: str = "report.json") -> dict[str, Any]:
    return json.loads(Path(name).read_text())


def clause(status: str = "pass", *, cases: int = 10, id: str = "a.b") -> dict[str, Any]:
    message = "" if status in ("pass", "known") else f"it is {status}"
    return {"id": id, "status": status, "constructed": 0, "examples": cases, "message": message}


def report(*clauses: dict[str, Any], name: str = "mine", **parts: Any) -> dict[str, Any]:
    adapters = [{"name": name, "clauses": list(clauses)}]
    return {"schema": 1, "profile": "ci", "max_examples": 100, "adapters": adapters, **parts}


class TestDifference:
    @pytest.mark.parametrize(
        ("old", "new", "kind", "red"),
        [
            ("pass", "fail", "worse", True),
            ("pass", "unsupported", "worse", True),
            ("pass", "known", "worse", True),
            ("known", "unsupported", "worse", True),
            ("unsupported", "inconclusive", "worse", True),
            ("fail", "crash", "worse", True),
            ("known", "fixed", "fixed", True),
            ("fail", "pass", "better", False),
            ("crash", "fail", "better", False),
            ("known", "pass", "better", False),
        ],
    )
    def test_names_what_changed(self, old: str, new: str, kind: str, red: bool) -> None:
        found = compare(report(clause(old)), report(clause(new)))
        (change,) = found.changes
        assert (change.kind, change.adapter, change.clause) == (kind, "mine", "a.b")
        assert change.words.startswith(f"{old} -> {new}")
        assert found.red is red

    @pytest.mark.parametrize("status", ["pass", "fail", "known", "unsupported", "crash"])
    def test_what_stays_is_not_named(self, status: str) -> None:
        found = compare(report(clause(status)), report(clause(status)))
        assert (found.changes, found.same, found.red) == ((), 1, False)

    def test_a_clause_that_is_gone_has_vanished(self) -> None:
        found = compare(report(clause(), clause(id="c.d")), report(clause()))
        assert [str(each) for each in found.changes] == ["vanished  mine c.d: was pass"]
        assert found.red

    def test_an_adapter_that_is_gone_has_vanished(self) -> None:
        found = compare(report(clause()), report(clause(), name="other"))
        assert [each.kind for each in found.changes] == ["vanished", "new"]

    def test_fewer_cases_are_named(self) -> None:
        found = compare(report(clause(cases=100)), report(clause(cases=4)))
        assert [each.words for each in found.changes] == ["100 -> 4 cases"]
        assert found.red

    def test_fewer_cases_of_what_fails_anyway_are_not(self) -> None:
        assert not compare(report(clause("fail")), report(clause("fail", cases=1))).changes

    def test_more_cases_and_new_clauses_are_welcome(self) -> None:
        found = compare(report(clause()), report(clause(cases=99), clause("fail", id="c.d")))
        assert [each.kind for each in found.changes] == ["new"]
        assert not found.red

    def test_red_changes_come_first_and_counts_last(self) -> None:
        old = report(clause("fail"), clause(id="c.d"), clause(id="e.f"))
        lines = compare(old, report(clause(), clause("fail", id="c.d"), clause(id="e.f"))).lines()
        assert lines[0] == "worse     mine c.d: pass -> fail: it is fail"
        assert lines[1] == "better    mine a.b: fail -> pass"
        assert lines[2] == "1 worse, 1 better, 1 the same"

    def test_a_partial_report_is_red_as_the_new_one_and_refused_as_the_old_one(self) -> None:
        whole, part = report(clause()), report(clause(), partial=True)
        assert compare(whole, part).red
        with pytest.raises(ReportError, match="interrupted run"):
            compare(part, whole)

    @pytest.mark.parametrize("parts", [{"profile": "smoke"}, {"max_examples": 10}])
    def test_runs_that_were_not_alike_cannot_be_compared(self, parts: dict[str, Any]) -> None:
        with pytest.raises(ReportError, match="run both with the same "):
            compare(report(clause()), report(clause(), **parts))

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99, "adapters": []}', "3"])
    def test_what_is_no_report_is_refused_in_one_line(self, text: str) -> None:
        Path("broken.json").write_text(text)
        with pytest.raises(ReportError, match=r"^Cannot read the report broken.json: .+$"):
            load_report(Path("broken.json"))

    def test_an_empty_file_is_called_empty(self) -> None:
        Path("empty.json").touch()
        with pytest.raises(ReportError, match=r"^Cannot read the report empty.json: it is empty$"):
            load_report(Path("empty.json"))


class TestDiffCommand:
    def test_exits_0_1_and_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert check(ROUTER, *QUICK, "--json=good.json") == 0
        assert check(WRONG, *QUICK, "--json=bad.json") == 1
        bad = read("bad.json")
        bad["adapters"][0]["name"] = "right"
        Path("bad.json").write_text(json.dumps(bad))
        capsys.readouterr()
        assert main(["diff", "good.json", "good.json"]) == 0
        assert main(["diff", "bad.json", "good.json"]) == 0
        assert main(["diff", "good.json", "bad.json"]) == 1
        assert "worse     right weights.unbiased: pass -> fail" in capsys.readouterr().out
        assert main(["diff", "good.json", "absent.json"]) == 2


class TestBaseline:
    def test_only_what_is_worse_turns_the_gate_red(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert check(WRONG, *QUICK, "--json=base.json") == 1
        assert check(WRONG, *QUICK, "--baseline=base.json") == 0
        assert "2 the same" in capsys.readouterr().out
        base = read("base.json")
        base["adapters"][0]["clauses"][1]["status"] = "pass"
        Path("base.json").write_text(json.dumps(base))
        assert check(WRONG, *QUICK, "--baseline=base.json") == 1

    def test_with_clauses_only_these_are_compared(self) -> None:
        assert check(ROUTER, *QUICK, "--json=base.json") == 0
        assert check(ROUTER, *QUICK[1:], "--baseline=base.json") == 0

    def test_an_absent_baseline_is_refused_before_anything_runs(self) -> None:
        assert check(ROUTER, *QUICK, "--baseline=absent.json", "--json=new.json") == 2
        assert not Path("new.json").exists()


class TestFloor:
    def test_a_run_below_the_floor_is_red(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert check(ROUTER, *QUICK, "--min-cases=1000") == 1
        assert "fewer than the floor of 1000" in capsys.readouterr().out
        assert check(ROUTER, *QUICK, "--min-cases=3", "--json=report.json") == 0
        assert read()["min_cases"] == 3

    def test_a_whole_run_has_a_floor_of_its_own(self) -> None:
        Path("idle.py").write_text(
            "from moe_routing.implementations import *\nfrom moe_routing.reference import *\n"
            "class Idle:\n"
            "    name = 'idle'\n"
            "    def capabilities(self): return Capabilities(claims=())\n"
            "    def route(self, config, inputs): raise Unsupported('nothing')\n"
        )
        assert check("idle.py:Idle", "--profile=smoke", "--no-isolate", "--json=report.json") == 1
        assert read()["min_cases"] == PROFILES["smoke"].max_examples
        assert read()["adapters"][0]["summary"]["in_spec"] == len(read()["adapters"][0]["clauses"])

    def test_unsupported_does_not_raise_the_score(self) -> None:
        check(ROUTER, *QUICK, "--json=report.json")
        summary = read()["adapters"][0]["summary"]
        assert summary["passed"] == 2
        assert summary["in_spec"] > 50, "the whole specification, whatever was selected"


def filled(words: list[str]) -> argparse.Namespace:
    """Return the options of a command line, with the defaults of those that it left open."""
    arguments = _parsed(words)
    configured.fill(arguments)
    return arguments


class TestSeeds:
    def test_nightly_draws_another_seed_every_time_and_says_it(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seeds = set()
        for _ in range(2):
            check(ROUTER, *QUICK, "--profile=nightly", "--json=report.json")
            seeds.add(read()["seed"])
            assert f"--profile nightly --seed {read()['seed']}" in capsys.readouterr().out
        assert len(seeds) == 2

    def test_ci_has_one_seed(self) -> None:
        check(ROUTER, *QUICK, "--json=report.json")
        assert read()["seed"] == 0

    @pytest.mark.parametrize(
        ("option", "bulk"),
        [("--seed=0", False), ("--profile=nightly", True), ("--device=cuda", True)],
    )
    def test_bulk_is_for_nightly_and_for_devices(self, option: str, bulk: bool) -> None:
        assert gating.plan(filled(["check", ROUTER, option])).bulk is bulk

    def test_a_budget_ends_the_drawing(self) -> None:
        few = ("--clause=weights.sum", "--no-isolate", "--profile=nightly", "--budget=0.2")
        assert check(ROUTER, *few, "--json=report.json") == 0
        (checked,) = read()["adapters"][0]["clauses"]
        assert checked["examples"] < 2000
        assert checked["message"] == "stopped by the time budget"

    def test_a_budget_is_shared_by_the_adapters_that_a_glob_stands_for(self) -> None:
        nightly = ("--clause=weights.sum", "--profile=nightly", "--budget=200", "--jobs=2")
        both, one = (
            gating.plan(filled(["check", *adapters, *nightly]))
            for adapters in (["transformers:qwen3_m?e", "torch"], ["torch"])
        )
        assert (both.seconds, one.seconds) == (200.0, 400.0)

    def test_a_budget_is_refused_where_the_verdict_must_not_depend_on_the_clock(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert check(ROUTER, *QUICK, "--budget=5") == 2
        assert "--budget makes a run depend on the clock, which ci" in capsys.readouterr().err


class TestExamples:
    def test_a_failing_case_is_kept_and_run_first_later(self) -> None:
        assert check(WRONG, *QUICK, "--examples=kept") == 1
        (path, *_) = sorted(Path("kept/weights.unbiased").glob("*.json"))
        assert path.is_file()
        before = set(Path("kept").rglob("*.json"))
        assert check(WRONG, *QUICK, "--examples=kept") == 1
        assert set(Path("kept").rglob("*.json")) == before, "a case is kept once"

    def test_a_kept_case_counts_where_it_is_right(self) -> None:
        check(ROUTER, *QUICK, "--json=report.json")
        without = read()["adapters"][0]["clauses"]
        check(WRONG, *QUICK, "--examples=kept")
        assert check(ROUTER, *QUICK, "--examples=kept", "--json=report.json") == 0
        counts = [
            after["constructed"] - before["constructed"]
            for before, after in zip(without, read()["adapters"][0]["clauses"], strict=True)
        ]
        assert counts == [1, 1]

    def test_nightly_keeps_them_by_itself(self) -> None:
        check(WRONG, *QUICK, "--profile=nightly", "--seed=0")
        assert list(Path("moe-routing-examples").rglob("*.json"))


def test_two_runs_of_ci_differ_in_their_times_alone_however_many_jobs_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which several jobs would share out otherwise
    clauses = ("--clause=weights.s*", "--clause=groups.kept-only", "--clause=layout.*")
    clauses = (*clauses, f"--max-examples={nightly(20, 100)}")
    texts = []
    for jobs in (1, 2):
        assert check("reference", "torch", *clauses, "--json=report.json", f"--jobs={jobs}") == 0
        text = Path("report.json").read_text()
        texts.append(re.sub(r'seconds": [0-9.]+', 'seconds": 0', text))
    assert texts[0] == texts[1]
    assert read()["adapters"][1]["threads"] >= 1, "what torch computes with"
    assert {"numpy", "torch", "hypothesis"} <= set(read()["environment"]["packages"])

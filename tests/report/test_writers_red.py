"""What turns a run red without a broken clause is reported by every writer, in its own way."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.cli import main
from moe_routing.conformance.report.github import annotations
from moe_routing.conformance.report.html import html_page
from moe_routing.conformance.report.junit import junit_xml
from moe_routing.conformance.report.markdown import literal, markdown
from moe_routing.conformance.report.terminal import Terminal
from moe_routing.conformance.report.text import broken, complaints, reproduce

WRONG = f"{Path(__file__).parents[1]}/data/wrong_adapters.py"
PASSED = ClauseResult(
    id="weights.match", level="MUST", chapter="weights", status="pass", examples=3
)
GOOD = AdapterResult(
    name="good", package=None, version=None, numerics=[], clauses=(PASSED,), reference="good.py:G"
)
GREEN = RunResult(profile="ci", seed=0, max_examples=100, environment={}, adapters=(GOOD,))
IDLE = replace(GOOD, name="idle", clauses=(replace(PASSED, status="unsupported", message="why"),))
LOST = replace(GOOD, name="lost", clauses=(), unloaded="lost is not installed")

RUNS = {
    "green": (GREEN, None),
    "partial": (replace(GREEN, ended="interrupted"), "interrupted: this run is partial"),
    "too few": (replace(GREEN, min_cases=9), "good: 3 cases run, fewer than the floor of 9"),
    "unloaded": (replace(GREEN, adapters=(GOOD, LOST)), "lost: could not run: lost is not"),
    "idle": (replace(GREEN, adapters=(GOOD, IDLE)), "idle: nothing was checked: the one clause"),
    "empty": (replace(GREEN, adapters=()), "nothing was checked"),
}


@pytest.fixture(params=RUNS)
def case(request: pytest.FixtureRequest) -> tuple[RunResult, str | None]:
    return RUNS[request.param]


def test_a_run_is_red_just_where_something_is_reported(case: tuple[RunResult, str | None]) -> None:
    run, words = case
    reported = [each for _, each in complaints(run)]
    assert bool(run.exit_code) == bool(reported) == (words is not None)
    assert all(each.startswith(words or "") for each in reported)


def test_junit_is_red_with_it(case: tuple[RunResult, str | None]) -> None:
    run, words = case
    root = ET.fromstring(junit_xml(run))
    errors = [found.get("message", "") for found in root.iter("error")]
    assert [each for each in errors if each.startswith(words or "-")] == errors
    assert bool(errors) == bool(run.exit_code)
    assert sum(int(suite.get("errors", "")) for suite in root) == len(errors)


def test_github_annotates_it(case: tuple[RunResult, str | None]) -> None:
    run, words = case
    lines = annotations(run)
    assert bool(lines) == bool(run.exit_code)
    assert all(line.startswith(f"::error title=moe-routing::{words}") for line in lines)


def test_markdown_and_the_page_say_it(case: tuple[RunResult, str | None]) -> None:
    run, words = case
    if words is not None:
        last = words.rpartition(": ")[2]
        assert literal(last) in markdown(run)
        assert last in html_page(run)
    assert f'<header data-color="{"red" if run.exit_code else "green"}">' in html_page(run)


def test_github_is_only_warned_of_what_a_baseline_excuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["check", f"{WRONG}:BiasedWeights", "--clause=weights.unbiased", "--max-examples=3"]
    assert main([*command, "--json=before.json", "--github"]) == 1
    assert "\n::error file=" in capsys.readouterr().out
    assert main([*command, "--baseline=before.json", "--github"]) == 0
    out = capsys.readouterr().out
    assert "\n::warning file=" in out
    assert "::error" not in out


class TestReproduce:
    def test_checks_a_clause_without_a_case_as_it_was_checked(self) -> None:
        options = ("--known=a list.toml", "--profile=smoke", "--seed=5")
        adapter = replace(GOOD, device="cuda", options=options)
        words = shlex.split(reproduce(adapter, PASSED))
        wanted = ["--clause=weights.match", "--device=cuda", *options]
        assert words == ["moe-routing", "check", "good.py:G", *wanted]

    def test_replays_a_case_on_its_device(self) -> None:
        adapter = replace(GOOD, device="cuda", options=("--seed=5",))
        clause = replace(PASSED, case_file="kept/it.json")
        words = shlex.split(reproduce(adapter, clause))
        assert words == ["moe-routing", "replay", "kept/it.json", "good.py:G", "--device=cuda"]

    def test_a_run_knows_its_options(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        seen: list[RunResult] = []
        monkeypatch.setattr(
            "moe_routing.conformance.cli.outputs.write", lambda run, files: seen.append(run)
        )
        settings = ["--profile=smoke", "--seed=5", "--max-examples=4"]
        main(["check", f"{WRONG}:BiasedWeights", "--clause=weights.unbiased", *settings])
        (adapter,) = seen[0].adapters
        assert broken(adapter)
        assert list(adapter.options) == settings


@pytest.mark.parametrize("several", [1, 2])
def test_who_answered_nothing_has_one_line_and_no_table(
    several: int, capsys: pytest.CaptureFixture[str]
) -> None:
    scope = replace(PASSED, status="unsupported", message="no groups are claimed")
    lost = replace(LOST, clauses=(scope, replace(PASSED, status="error", message=LOST.unloaded)))
    shown = Terminal(several=several > 1)
    for _ in range(several):
        shown.end(lost)
    shown.close(replace(GREEN, adapters=(lost,) * several))
    assert capsys.readouterr().out == "lost: could not run\n" * several

"""Every form of report names the rules of a broken clause, with the page of each."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli import main
from moe_routing.conformance.report.github import annotations
from moe_routing.conformance.report.html import html_page
from moe_routing.conformance.report.junit import junit_xml
from moe_routing.conformance.report.markdown import markdown
from moe_routing.conformance.report.report import report
from moe_routing.conformance.report.terminal import Terminal
from moe_routing.conformance.report.text import broken, story_lines

WRONG = f"{Path(__file__).parents[1]}/data/wrong_adapters.py:BiasedWeights"
LINE = "rule      WGT-1 (docs/spec/weights.md)"


def terminal(run: RunResult) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False, soft_wrap=True)
    shown = Terminal(console)
    for adapter in run.adapters:
        shown.begin(adapter.name, len(adapter.clauses))
        shown.end(adapter)
    shown.close(run)
    return console.file.getvalue()


def junit(run: RunResult) -> str:
    return "\n".join(found.text or "" for found in ET.fromstring(junit_xml(run)).iter("failure"))


def page(run: RunResult) -> str:
    return html.unescape(re.sub("<[^>]*>", "", html_page(run)))


def github(run: RunResult) -> str:
    return "\n".join(annotations(run)).replace("%0A", "\n")


def a_failure_of(id_: str, run: RunResult) -> tuple[AdapterResult, ClauseResult]:
    return next((a, each) for a in run.adapters for each in broken(a) if each.id == id_)


def test_a_story_names_its_rule_before_the_command_that_repeats_it(wrong_run: RunResult) -> None:
    *_, rule, last = story_lines(*a_failure_of("weights.unbiased", wrong_run))
    assert rule.strip() == LINE
    assert last.startswith("Reproduce with: ")


def test_a_story_names_all_the_rules_of_its_clause_a_page_a_line(wrong_run: RunResult) -> None:
    for adapter in wrong_run.adapters:
        for each in broken(adapter):
            text = "\n".join(story_lines(adapter, each))
            found = re.findall(r"\b[A-Z]+-\d+\b(?=.* \(docs/spec/)", text)
            assert found == sorted(found, key=CLAUSES[each.id].rules.index)
            assert {*found} == {*CLAUSES[each.id].rules}


@pytest.mark.parametrize("write", [terminal, markdown, junit, github])
def test_a_writer_of_stories_names_the_rule(
    write: Callable[[RunResult], str], wrong_run: RunResult
) -> None:
    assert f"  {LINE}\n" in write(wrong_run)


def test_the_page_names_the_rule(wrong_run: RunResult) -> None:
    assert "Rules: WGT-1 (docs/spec/weights.md)" in page(wrong_run)


def test_the_json_has_the_rules_of_every_clause(every_status: RunResult) -> None:
    (adapter,) = report(every_status)["adapters"]
    assert [each["rules"] for each in adapter["clauses"]] == [
        list(CLAUSES[each.id].rules) for each in every_status.adapters[0].clauses
    ]


def test_a_replay_names_the_rule_of_a_broken_clause_alone(
    wrong_run: RunResult, capsys: pytest.CaptureFixture[str]
) -> None:
    _, failed = a_failure_of("weights.unbiased", wrong_run)
    assert main(["replay", str(failed.case_file), WRONG, "reference"]) == 1
    *_, rule, passed = capsys.readouterr().out.splitlines()
    assert rule.strip() == LINE
    assert passed.startswith("pass  reference ")


def test_the_list_of_clauses_names_their_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clauses", "selection.k-equals-e"]) == 0
    wanted = "  rules: SEL-9 (docs/spec/selection.md), ROB-3 (docs/spec/robustness.md)\n"
    assert wanted in capsys.readouterr().out


def test_what_was_not_checked_names_no_rule(nothing_checked: RunResult) -> None:
    (adapter,) = nothing_checked.adapters
    unloaded = AdapterResult(**{**vars(adapter), "unloaded": "gone"})
    lost = ClauseResult(
        id="weights.sum", level="MUST", chapter="weights", status="error", message="gone"
    )
    assert not [line for line in story_lines(unloaded, lost) if "docs/spec" in line]

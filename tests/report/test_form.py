"""Reports that are read: every reader is given the form that it reads, or one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.cli import main
from moe_routing.conformance.report.diff import ReportError, load_report
from moe_routing.conformance.report.report import SCHEMA, report

FILE = Path("report.json")
FORM = Path("form.json")
READERS = (
    ["diff", str(FILE), str(FORM)],
    ["diff", str(FORM), str(FILE)],
    ["check", "reference", "--clause=weights.sum", "--max-examples=1", f"--baseline={FILE}"],
    ["adapters", "reference", "--markdown=page.md", f"--report={FILE}"],
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def good(every_status: RunResult) -> dict[str, Any]:
    """A report with a clause of each status, as it is read again."""
    FORM.write_text(json.dumps({**report(every_status), "environment": {"packages": {}}}))
    return json.loads(FORM.read_text())


def with_value(data: Any, at: str, value: Any = None, *, gone: bool = False) -> Any:
    """Return a copy with something else at a place such as ``adapters.0.name``, or nothing."""
    changed = copy.deepcopy(data)
    *way, last = [int(word) if word.isdecimal() else word for word in at.split(".")]
    inner = changed
    for step in way:
        inner = inner[step]
    if gone:
        del inner[last]
    else:
        inner[last] = value
    return changed


def test_a_report_is_read_as_it_was_written(good: dict[str, Any]) -> None:
    assert load_report(FORM) == good


@pytest.mark.parametrize("at", ["adapters.0.device", "adapters.0.clauses.0.rules"])
def test_an_older_report_without_a_later_key_is_read(at: str, good: dict[str, Any]) -> None:
    FILE.write_text(json.dumps(with_value(good, at, gone=True)))
    load_report(FILE)


@pytest.mark.parametrize("argv", READERS, ids=lambda argv: argv[0])
@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        ("schema", "1", "schema is '1', but should be a whole number"),
        ("schema", SCHEMA + 1, f"schema {SCHEMA + 1} is newer than {SCHEMA}: update the suite"),
        ("profile", None, "profile is None, but should be a string"),
        ("adapters", None, "adapters is None, but should be a JSON array"),
        ("adapters", [1], "adapters[0] is 1, but should be a JSON object"),
        ("adapters.0.name", ["mine"], "adapters[0].name is ['mine'], but should be a string"),
        ("adapters.0.device", {}, "adapters[0].device is {}, but should be a string"),
        ("adapters.0.wraps.version", 1, "wraps.version is 1, but should be a string or null"),
        ("adapters.0.clauses", {}, "adapters[0].clauses is {}, but should be a JSON array"),
        ("adapters.0.clauses.2", [], "adapters[0].clauses[2] is [], but should be a JSON object"),
        (
            "adapters.0.clauses.0.status",
            "odd",
            "clauses[0].status is 'odd', but should be pass, fail, known, fixed, error, crash, "
            "timeout, unsupported or inconclusive",
        ),
        ("adapters.0.clauses.0.status", ["pass"], "clauses[0].status is ['pass'], but should be"),
        ("adapters.0.clauses.0.examples", "3", "examples is '3', but should be a whole number"),
        ("environment.packages", [], "environment.packages is [], but should be a JSON object"),
    ],
)
def test_another_form_is_reported_in_one_line(
    argv: list[str],
    at: str,
    value: Any,
    words: str,
    good: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    FILE.write_text(json.dumps(with_value(good, at, value)))
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"moe-routing: Cannot read the report {FILE}: ")
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "at",
    [
        "schema",
        "suite_version",
        "environment",
        "environment.packages",
        "profile",
        "seed",
        "max_examples",
        "adapters",
        "adapters.0.name",
        "adapters.0.wraps",
        "adapters.0.wraps.package",
        "adapters.0.clauses",
        *(f"adapters.0.clauses.3.{key}" for key in ("id", "status", "constructed", "examples")),
        "adapters.0.clauses.3.message",
    ],
)
def test_what_is_missing_is_named_by_its_place(at: str, good: dict[str, Any]) -> None:
    FILE.write_text(json.dumps(with_value(good, at, gone=True)))
    where = at.replace(".0", "[0]").replace(".3", "[3]")
    with pytest.raises(ReportError) as error:
        load_report(FILE)
    assert str(error.value) == f"Cannot read the report {FILE}: {where} is missing"


def test_a_long_value_is_shown_in_part(good: dict[str, Any]) -> None:
    FILE.write_text(json.dumps(with_value(good, "profile", list(range(1000)))))
    with pytest.raises(ReportError) as error:
        load_report(FILE)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_json_is_reported_in_one_line(text: str) -> None:
    FILE.write_text(text)
    with pytest.raises(ReportError, match=f"Cannot read the report {FILE}: [^\n]+$"):
        load_report(FILE)

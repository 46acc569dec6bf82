"""What docs/promise.md promises: nothing of the last release is gone, or has another form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.cli.exit_codes import EXIT_CODES
from moe_routing.conformance.report.report import SCHEMA, report

FILE = Path(__file__).parents[1] / "data" / "promised.json"


@pytest.fixture(scope="module")
def promised() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def test_no_clause_or_rule_is_gone(promised: dict[str, Any]) -> None:
    assert set(promised["clauses"]) <= set(CLAUSES)
    assert set(promised["rules"]) <= {rule for each in CLAUSES.values() for rule in each.rules}


def test_the_statuses_and_exit_codes_are_those(promised: dict[str, Any]) -> None:
    assert promised["statuses"] == list(get_args(Status))
    assert {code for codes in EXIT_CODES.values() for code in codes} == set(promised["exit_codes"])


def kinds(data: Any) -> set[str]:
    """Return the keys of a table, each with the kind of its value in JSON; null says nothing."""
    return {f"{key}: {type(value).__name__}" for key, value in data.items() if value is not None}


def test_a_report_has_every_key_in_its_form(promised: dict[str, Any], wrong_run: RunResult) -> None:
    assert promised["report_schema"] == SCHEMA
    made = json.loads(json.dumps(report(wrong_run)))
    adapters = made["adapters"]
    clauses = [each for adapter in adapters for each in adapter["clauses"]]
    for name, tables in (("report", [made]), ("adapter", adapters), ("clause", clauses)):
        found = set().union(*map(kinds, tables))
        assert set(promised[name]) <= found, f"{name}: a key is gone, or of another form"

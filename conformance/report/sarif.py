"""The SARIF writer: version 2.1.0, which code scanning services and editors read.

A result is a broken clause, a rule a clause that was run. What is known, unsupported or right is
no result: services would show it as an alert. What is wrong with the run itself is a notification.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.conformance.clauses.rules import rule_lines
from moe_routing.conformance.report.places import Finding, findings
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.text import complaints, story_lines
from moe_routing.conformance.run.environment import suite_version

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def sarif(run: RunResult) -> str:
    """Return the SARIF report of a run."""
    ran = {clause.id for adapter in run.adapters for clause in adapter.clauses}
    rules = [CLAUSES[each] for each in CLAUSES if each in ran]
    driver = {
        "name": "moe-routing",
        "version": suite_version(),
        "rules": [_rule(each) for each in rules],
    }
    places = {clause.id: number for number, clause in enumerate(rules)}
    found = {
        "tool": {"driver": driver},
        "automationDetails": {"id": "moe-routing/"},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(run)],
        "results": [_result(each, places) for each in findings(run)],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [found]}, indent=1) + "\n"


def _invocation(run: RunResult) -> dict[str, Any]:
    notes = [{"level": "error", "message": {"text": words}} for _, words in complaints(run)]
    whole = run.exit_code != 2 and not run.partial
    found: dict[str, Any] = {"executionSuccessful": whole, "exitCode": run.exit_code}
    return found | ({"toolExecutionNotifications": notes} if notes else {})


def _rule(clause: Clause) -> dict[str, Any]:
    rules = "\n".join(rule_lines(clause.rules))
    return {
        "id": clause.id,
        "shortDescription": {"text": clause.statement},
        "fullDescription": {"text": clause.why},
        "help": {"text": f"{clause.why}\n{rules}\nmoe-routing explain {clause.id}"},
        "defaultConfiguration": {"level": _level(clause.level)},
        "properties": {"tags": ["moe-routing", clause.chapter]},
    }


def _level(level: str) -> str:
    return "error" if level == "MUST" else "warning"


def _result(found: Finding, places: dict[str, int]) -> dict[str, Any]:
    adapter, clause = found.adapter, found.clause
    words = f"{clause.status} on {adapter.name}: " + "\n".join(story_lines(adapter, clause))
    at = {
        "artifactLocation": {"uri": quote(found.place.path)},
        "region": {"startLine": found.place.line},
    }
    named = {"name": printable(adapter.name), "kind": "module"}
    index = {"ruleIndex": places[clause.id]} if clause.id in places else {}
    return {
        "ruleId": clause.id,
        **index,
        "level": _level(clause.level),
        "message": {"text": printable(words)},
        "locations": [{"physicalLocation": at, "logicalLocations": [named]}],
        "partialFingerprints": {"adapterAndClause/v1": found.fingerprint},
        "properties": {"status": clause.status},
    }

"""The writer of GitLab's code quality report: an issue a broken clause, in a merge request."""

from __future__ import annotations

import json
from typing import Any

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.report.places import Finding, findings
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.text import story_lines


def code_quality(run: RunResult) -> str:
    """Return the code quality report of a run."""
    return json.dumps([_issue(each) for each in findings(run)], indent=1) + "\n"


def _issue(found: Finding) -> dict[str, Any]:
    adapter, clause = found.adapter, found.clause
    words = f"{clause.status} {adapter.name} {clause.id}: {clause.message}"
    return {
        "description": printable(" ".join(words.split())),
        "content": {"body": "\n".join(story_lines(adapter, clause))},
        "check_name": clause.id,
        "categories": ["Bug Risk"],
        "fingerprint": found.fingerprint,
        "severity": "critical" if clause.level == "MUST" else "major",
        "location": {"path": found.place.path, "lines": {"begin": found.place.line}},
    }

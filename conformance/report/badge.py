"""The writer of a badge: the JSON that the endpoint badge of shields.io reads from an address."""

from __future__ import annotations

import json

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.report.text import verdict
from moe_routing.reference.checks import counted


def badge(run: RunResult) -> str:
    """Return the badge of a run: how many clauses hold, or what is wrong in two or three words."""
    message, color = _words(run)
    found: dict[str, object] = {
        "schemaVersion": 1,
        "label": "MoE routing",
        "message": message,
        "color": color,
    }
    failed = {} if run.exit_code == 0 else {"isError": True}
    return json.dumps(found | failed, indent=1) + "\n"


def _words(run: RunResult) -> tuple[str, str]:
    if run.exit_code == 2 or run.partial:
        return ("no verdict" if run.partial else "could not run"), "lightgrey"
    if run.exit_code:
        return verdict(run), "red"
    found = [each.summary() for each in run.adapters]
    known = sum(each["known"] for each in found)
    passed = f"{counted(sum(each['passed'] for each in found), 'clause')} pass"
    return (f"{passed}, {known} known", "yellowgreen") if known else (passed, "brightgreen")

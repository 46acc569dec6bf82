"""An audit as JSON; shapes as in docs/auditing.md."""

from __future__ import annotations

import json
from typing import Any

from moe_routing.conformance.auditing.finding import Finding
from moe_routing.conformance.auditing.outcome import Outcome
from moe_routing.conformance.clauses.registry import rules_of
from moe_routing.conformance.run.environment import environment, suite_version
from moe_routing.reference import SPEC_VERSION

SCHEMA = 1
"""The version of the form."""


def json_text(audit: Outcome) -> str:
    """Return the audit as JSON."""
    return json.dumps(form(audit), indent=1) + "\n"


def form(audit: Outcome) -> dict[str, Any]:
    """Return the audit as plain values."""
    return {
        "schema": SCHEMA,
        "kind": "audit",
        "suite_version": suite_version(),
        "spec_version": SPEC_VERSION,
        "environment": environment(),
        "model": audit.model,
        "exit_code": audit.exit_code,
        "blocks": audit.blocks,
        "judged": len(audit.judged),
        "failed": len(audit.failures),
        "findings": [_finding(each) for each in audit.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    failure = finding.failure
    return {
        "path": finding.path,
        "block": finding.block,
        "part": finding.part or None,
        "status": finding.status,
        "tokens": finding.tokens,
        "clause": finding.clause or None,
        "rules": list(rules_of(finding.clause)) if finding.clause else [],
        "token": finding.token,
        "message": failure.summary if failure else None,
        "details": list(failure.details) if failure else [],
        "reason": finding.reason or None,
        "notes": list(finding.notes),
    }

"""The JSON report: everything a run found, as data."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.clauses import rules_of
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.report.text import reproduce
from moe_routing.conformance.run.environment import suite_version
from moe_routing.reference import SPEC_VERSION

SCHEMA = 1
"""The version of the report's form."""


def report(result: RunResult) -> dict[str, Any]:
    """Return the JSON report of a run; shapes as in docs/reporting.md."""
    return {
        "schema": SCHEMA,
        "suite_version": suite_version(),
        "spec_version": SPEC_VERSION,
        "environment": result.environment,
        "profile": result.profile,
        "seed": result.seed,
        "max_examples": result.max_examples,
        "min_cases": result.min_cases,
        "partial": result.partial,
        "exit_code": result.exit_code,
        "adapters": [_adapter(each) for each in result.adapters],
    }


def _adapter(result: AdapterResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "wraps": {"package": result.package, "version": result.version},
        "numerics": result.numerics,
        "device": result.device,
        "threads": result.threads,
        "start_seconds": result.start_seconds,
        "unloaded": result.unloaded or None,
        "hints": list(result.hints),
        "untried": dict(result.untried),
        "summary": result.summary(),
        "cases": dict(sorted(result.drawn().items())),
        "clauses": [_clause(each, result) for each in result.clauses],
    }


def _clause(result: ClauseResult, adapter: AdapterResult) -> dict[str, Any]:
    used = result.allowance_used
    return {
        "id": result.id,
        "level": result.level,
        "chapter": result.chapter,
        "rules": list(rules_of(result.id)),
        "status": result.status,
        "constructed": result.constructed,
        "examples": result.examples,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 3),
        "allowance_used": round(used, 4) if math.isfinite(used) else None,
        "message": result.message,
        "details": list(result.story),
        "stage": result.failure.stage if result.failure else None,
        "token": _token(result.failure),
        "onsets": [
            {"size": each.size, "fails": each.fails, "passes": each.passes}
            for each in result.onsets
        ],
        "events": result.events,
        "divergences": result.divergences,
        "findings": list(result.findings),
        "past_edges": list(result.past),
        "case": result.case_file,
        "unwritten": list(result.unwritten),
        "reproduce": None if result.green else reproduce(adapter, result),
    }


def _token(failure: Failure | None) -> dict[str, Any] | None:
    """Return the values of the token that went wrong (``TokenView``), if there is one."""
    return None if failure is None or failure.view is None else _plain(asdict(failure.view))


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON: no tuples, and ``nan``, ``inf`` and ``-inf`` as words."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

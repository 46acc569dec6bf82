"""A comparison as JSON; shapes as in docs/comparing.md."""

from __future__ import annotations

import json
from typing import Any

from moe_routing.conformance.compare.comparing import Comparison
from moe_routing.conformance.compare.counts import Counts
from moe_routing.conformance.compare.routers import Router
from moe_routing.conformance.compare.smallest import Example
from moe_routing.conformance.compare.written import FIGURES
from moe_routing.conformance.run.environment import environment, suite_version
from moe_routing.reference import SPEC_VERSION

SCHEMA = 1
"""The version of the form."""


def json_text(comparison: Comparison) -> str:
    """Return the comparison as JSON."""
    return json.dumps(form(comparison), indent=1) + "\n"


def form(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain values."""
    plan, names = comparison.plan, {each.letter: each.name for each in comparison.routers}
    return {
        "schema": SCHEMA,
        "kind": "comparison",
        "suite_version": suite_version(),
        "spec_version": SPEC_VERSION,
        "environment": environment(),
        "profile": comparison.profile,
        "seed": plan.seed,
        "max_examples": plan.max_examples,
        "dtype": plan.dtype,
        "device": comparison.device,
        "exit_code": comparison.exit_code,
        "adapters": [_adapter(each) for each in comparison.routers],
        "total": _counts(comparison.tables.total(), names),
        "rows": [
            {**vars(key), "event": key.event or None, **_counts(row, names)}
            for key, row in comparison.tables.rows.items()
        ],
        "known": [
            {"adapter": name, "divergence": id_, "cases": cases}
            for (name, id_), cases in comparison.tables.known.items()
        ],
        "smallest": [_example(each, names) for each in comparison.examples],
    }


def _adapter(router: Router) -> dict[str, Any]:
    about = router.about
    return {
        "name": router.name,
        "reference": router.reference,
        "wraps": {"package": about.package, "version": about.version},
        "numerics": about.capabilities.numerics.declared(),
    }


def _counts(counts: Counts, names: dict[str, str]) -> dict[str, Any]:
    figures = {name: getattr(counts, name) for name in ("cases", *FIGURES)}
    wrong = {name: counts.wrong[letter] for letter, name in names.items()}
    failed = {name: counts.failed[letter] for letter, name in names.items()}
    return {**figures, "wrong": wrong, "failed": failed}


def _example(example: Example, names: dict[str, str]) -> dict[str, Any]:
    return {
        "adapter": names[example.router] if example.router else None,
        "cause": example.cause,
        "clause": example.clause,
        "message": example.title,
        "details": list(example.lines),
        "case": example.case_file,
        "reproduce": example.reproduce,
    }

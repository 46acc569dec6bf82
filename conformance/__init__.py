"""The conformance suite: clauses, generators, the judge, and the runs that use them.

Names are imported on first use, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_routing.conformance.auditing.auditing import Audit, audit
    from moe_routing.conformance.calls.routing import Case
    from moe_routing.conformance.calls.shared_experts import SharedCase
    from moe_routing.conformance.cases.files import load_case, save_case
    from moe_routing.conformance.checking.plan import Plan
    from moe_routing.conformance.checking.results import ClauseResult, RunResult
    from moe_routing.conformance.clauses import CLAUSES, Clause, select_clauses
    from moe_routing.conformance.explain.failure import Failure
    from moe_routing.conformance.generators.strategies import (
        router_configs,
        router_inputs,
        routing_cases,
        shared_expert_cases,
    )
    from moe_routing.conformance.known.divergence import Divergence, load_known
    from moe_routing.conformance.pytest_plugin.items import conformance_tests
    from moe_routing.conformance.run.session import Settings, check, in_process

_HOME = {
    "CLAUSES": "clauses",
    "Audit": "auditing.auditing",
    "audit": "auditing.auditing",
    "Case": "calls.routing",
    "Clause": "clauses",
    "ClauseResult": "checking.results",
    "Divergence": "known.divergence",
    "Failure": "explain.failure",
    "Plan": "checking.plan",
    "RunResult": "checking.results",
    "Settings": "run.session",
    "SharedCase": "calls.shared_experts",
    "check": "run.session",
    "conformance_tests": "pytest_plugin.items",
    "in_process": "run.session",
    "load_case": "cases.files",
    "load_known": "known.divergence",
    "router_configs": "generators.strategies",
    "router_inputs": "generators.strategies",
    "routing_cases": "generators.strategies",
    "save_case": "cases.files",
    "select_clauses": "clauses",
    "shared_expert_cases": "generators.strategies",
}
"""The module of each public name; type checkers see the same above."""

__all__ = [
    "CLAUSES",
    "Audit",
    "Case",
    "Clause",
    "ClauseResult",
    "Divergence",
    "Failure",
    "Plan",
    "RunResult",
    "Settings",
    "SharedCase",
    "audit",
    "check",
    "conformance_tests",
    "in_process",
    "load_case",
    "load_known",
    "router_configs",
    "router_inputs",
    "routing_cases",
    "save_case",
    "select_clauses",
    "shared_expert_cases",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

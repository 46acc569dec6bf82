"""The conformance suite: clauses, generators, the judge, and the runs that use them.

Names are imported when first asked for, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Case": "cases.case",
    "Divergence": "known.divergence",
    "Plan": "checking.plan",
    "RunResult": "checking.results",
    "check": "run.session",
    "conformance_tests": "pytest_plugin.items",
    "load_case": "cases.case",
    "load_known": "known.divergence",
    "save_case": "cases.case",
    "select_clauses": "clauses",
    "router_configs": "generators.strategies",
    "router_inputs": "generators.strategies",
    "routing_cases": "generators.strategies",
    "shared_expert_cases": "generators.strategies",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

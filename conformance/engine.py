"""The engine: runs clauses over adapters and emits what happened; writers only consume it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from moe_routing.conformance.clause_run import PROFILES, Plan, check_clause, evaluate
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.results import AdapterResult, ClauseResult
from moe_routing.implementations import Adapter

__all__ = [
    "PROFILES",
    "AdapterFinished",
    "ClauseFinished",
    "ClauseStarted",
    "Plan",
    "check_clause",
    "evaluate",
    "run",
    "wrapped",
]


@dataclass(frozen=True, kw_only=True)
class ClauseStarted:
    """A clause is about to run."""

    adapter: str
    clause: Clause


@dataclass(frozen=True, kw_only=True)
class ClauseFinished:
    """A clause has run."""

    adapter: str
    result: ClauseResult


@dataclass(frozen=True, kw_only=True)
class AdapterFinished:
    """All clauses have run on an adapter."""

    result: AdapterResult


def run(adapter: Adapter, plan: Plan) -> Iterator[ClauseStarted | ClauseFinished | AdapterFinished]:
    """Run ``plan`` on ``adapter``, yielding an event before and after every clause.

    Errors: ``BackendMissing`` where the adapter's package is absent.
    """
    results = []
    for clause in plan.clauses:
        yield ClauseStarted(adapter=adapter.name, clause=clause)
        results.append(check_clause(adapter, clause, plan))
        yield ClauseFinished(adapter=adapter.name, result=results[-1])
    package, version = wrapped(adapter)
    yield AdapterFinished(
        result=AdapterResult(
            name=adapter.name,
            package=package,
            version=version,
            numerics=adapter.capabilities().numerics.declared(),
            clauses=tuple(results),
        )
    )


def wrapped(adapter: Adapter) -> tuple[str | None, str | None]:
    """Return the distribution that an adapter wraps, and its installed version."""
    package = getattr(adapter, "wraps", None)
    if package is None:
        return None, None
    try:
        return package, version(package)
    except PackageNotFoundError:
        return package, None

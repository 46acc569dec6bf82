"""The engine: runs clauses over adapters and emits what happened; writers only consume it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.plan import PROFILES, Plan
from moe_routing.conformance.checking.results import AdapterResult, ClauseResult
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.conformance.run.jobs import Lanes
from moe_routing.conformance.run.seat import About, CannotRun, Seat, wrapped
from moe_routing.implementations import Capabilities

__all__ = [
    "PROFILES",
    "AdapterFinished",
    "AdapterStarted",
    "ClauseFinished",
    "ClauseStarted",
    "Event",
    "Plan",
    "check_clause",
    "evaluate",
    "run",
    "wrapped",
]


@dataclass(frozen=True, kw_only=True)
class AdapterStarted:
    """An adapter is loaded, and about to be asked."""

    reference: str
    about: About
    clauses: int


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


Event = AdapterStarted | ClauseStarted | ClauseFinished | AdapterFinished
Open = Callable[[], Seat]
"""Opens a seat of one adapter; several may be open at once."""


def run(seats: Mapping[str, Open], plan: Plan, *, jobs: int = 1) -> Iterator[Event]:
    """Run ``plan`` on every adapter, yielding events in the order of adapters and clauses.

    ``seats`` maps the references that name the adapters to what opens a seat for them.
    ``jobs`` clauses run at a time, each on a seat of its own; the order of the events and
    what they say does not depend on it.
    """
    with ExitStack() as stack:
        lanes = stack.enter_context(Lanes(seats, plan.clauses, jobs))
        for reference in seats:
            yield from _adapter(lanes, reference, plan)


def _adapter(lanes: Lanes, reference: str, plan: Plan) -> Iterator[Event]:
    try:
        about = lanes.about(reference)
    except CannotRun as error:
        lanes.forget(reference)
        yield AdapterFinished(result=_unloaded(reference, plan, error))
        return
    yield AdapterStarted(reference=reference, about=about, clauses=len(plan.clauses))
    results: list[ClauseResult] = []
    why = ""
    try:
        for clause in plan.clauses:
            yield ClauseStarted(adapter=about.name, clause=clause)
            results.append(lanes.result(reference, clause))
            yield ClauseFinished(adapter=about.name, result=results[-1])
    except CannotRun as error:  # what was found until then stays
        lanes.forget(reference)
        results += _unasked(plan.clauses[len(results) :], error)
        why = str(error)
    threads = lanes.threads(reference)
    yield AdapterFinished(
        result=adapter_result(reference, about, results, threads=threads, unloaded=why)
    )


def adapter_result(
    reference: str,
    about: About,
    results: list[ClauseResult],
    *,
    threads: int | None = None,
    unloaded: str = "",
) -> AdapterResult:
    """Put together what was found about one adapter."""
    return AdapterResult(
        name=about.name,
        package=about.package,
        version=about.version,
        numerics=about.capabilities.numerics.declared(),
        clauses=tuple(results),
        hints=_hints(results, about.capabilities),
        reference=reference,
        in_spec=len(CLAUSES),
        threads=threads,
        unloaded=unloaded,
    )


def _hints(results: list[ClauseResult], capabilities: Capabilities) -> tuple[str, ...]:
    """Say which known bugs a failing adapter behaves like, or nothing where that goes wrong."""
    if all(each.status != "fail" for each in results):
        return ()
    from moe_routing.conformance.zoo.nearest import nearest

    try:
        return tuple(likeness.words for likeness in nearest(results, capabilities))
    except Exception:  # a hint is an ornament, for which no report is lost
        return ()


def _unloaded(reference: str, plan: Plan, error: CannotRun) -> AdapterResult:
    """Return the result of an adapter that could not be asked: every clause, and why."""
    return AdapterResult(
        name=reference,
        package=None,
        version=None,
        numerics=[],
        clauses=tuple(_unasked(plan.clauses, error)),
        reference=reference,
        in_spec=len(CLAUSES),
        unloaded=str(error),
    )


def _unasked(clauses: Sequence[Clause], error: CannotRun) -> list[ClauseResult]:
    """Return the results of clauses that an adapter could not be asked about, and why."""
    return [
        ClauseResult(
            id=clause.id,
            level=clause.level,
            chapter=clause.chapter,
            status=error.status,
            message=str(error),
        )
        for clause in clauses
    ]

"""The engine: runs clauses over adapters and emits what happened; writers only consume it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from moe_routing.conformance.checking.edges import settled
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.results import AdapterResult, ClauseResult
from moe_routing.conformance.checking.scope import ROWS_OF_THEIR_OWN, clauses_for
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.conformance.run.jobs import Jobs
from moe_routing.conformance.run.seat import About, CannotRun, Seat
from moe_routing.implementations import Capabilities
from moe_routing.implementations.protocol import ON_RANKS


@dataclass(frozen=True, kw_only=True)
class AdapterStarted:
    """An adapter is loaded, and about to be checked."""

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


RunEvent = AdapterStarted | ClauseStarted | ClauseFinished | AdapterFinished
Open = Callable[[], Seat]
"""Opens a seat of one adapter; several may be open at once."""

Hints = Callable[[Sequence[ClauseResult], Capabilities], tuple[str, ...]]
"""Returns which known bugs an adapter with these results and capabilities behaves like."""


def no_hints(results: Sequence[ClauseResult], capabilities: Capabilities) -> tuple[str, ...]:
    """Return no hints."""
    return ()


def run(
    seats: Mapping[str, Open], plan: Plan, *, jobs: int = 1, hints: Hints = no_hints
) -> Iterator[RunEvent]:
    """Run ``plan`` on every adapter, yielding events in the order of adapters and clauses.

    ``seats`` maps the references that name the adapters to what opens a seat for them.
    ``jobs`` clauses run at a time, each on a seat of its own; the events and
    their order do not depend on it.
    """
    with ExitStack() as stack:
        working = stack.enter_context(Jobs(seats, plan.clauses, jobs))
        for reference in seats:
            yield from _adapter(working, reference, plan, hints)


def _adapter(working: Jobs, reference: str, plan: Plan, hints: Hints) -> Iterator[RunEvent]:
    try:
        about = working.about(reference)
    except CannotRun as error:
        working.forget(reference)
        yield AdapterFinished(result=_unloaded(reference, plan, error))
        return
    clauses = clauses_for(plan.clauses, about.untried, about.capabilities)
    yield AdapterStarted(reference=reference, about=about, clauses=len(clauses))
    results: list[ClauseResult] = []
    why = ""
    hinted: tuple[str, ...] = ()
    try:
        for clause in clauses:
            yield ClauseStarted(adapter=about.name, clause=clause)
            results.append(working.result(reference, clause))
            yield ClauseFinished(adapter=about.name, result=results[-1])
        hinted = hints(results, about.capabilities)  # judged by all failures
        results = settled(results, partial(_again, working, reference, plan))
    except CannotRun as error:  # results so far stay
        working.forget(reference)
        results += _not_run(clauses[len(results) :], error)
        why = str(error)
        hinted = hints(results, about.capabilities)
    yield AdapterFinished(
        result=adapter_result(
            reference,
            about,
            results,
            plan=plan,
            hints=hinted,
            threads=working.threads(reference),
            unloaded=why,
        )
    )


def _again(
    working: Jobs, reference: str, plan: Plan, id_: str, past: tuple[str, ...], shrinks: bool
) -> ClauseResult:
    clause = next(each for each in plan.clauses if each.id == id_)
    return working.again(reference, clause, past, shrinks=shrinks)


def adapter_result(
    reference: str,
    about: About,
    results: Sequence[ClauseResult],
    *,
    plan: Plan | None = None,
    hints: tuple[str, ...] = (),
    threads: int | None = None,
    unloaded: str = "",
) -> AdapterResult:
    """Return the result of one adapter from its parts; ``plan`` is what was to be run."""
    held = [each for each in plan.clauses if each.promise is None] if plan else []
    left = Counter(each.method for each in held)
    return AdapterResult(
        name=about.name,
        package=about.package,
        version=about.version,
        numerics=about.capabilities.numerics.declared(),
        clauses=tuple(results),
        hints=hints,
        reference=reference,
        in_spec=len(clauses_for(CLAUSES.values(), about.untried, about.capabilities)),
        threads=threads,
        start_seconds=about.start_seconds,
        unloaded=unloaded,
        untried={name: left[name] for name in _worth_saying(about.untried) if left[name]},
    )


def _worth_saying(untried: Sequence[str]) -> list[str]:
    """Return the methods that a report says are lacking: of ranks at once, only where one is there.

    These are called with ``--ranks``, or of a backend that has all ranks in one process.
    """
    none = {*ON_RANKS} <= {*untried}
    return [name for name in untried if not (none and name in ON_RANKS)]


def _unloaded(reference: str, plan: Plan, error: CannotRun) -> AdapterResult:
    """Return the result of an adapter that could not run: the clauses of routers, and why."""
    routers = [each for each in plan.clauses if each.method in ("route", *ROWS_OF_THEIR_OWN)]
    return AdapterResult(
        name=reference,
        package=None,
        version=None,
        numerics=[],
        clauses=tuple(_not_run(routers or plan.clauses, error)),
        reference=reference,
        in_spec=len(CLAUSES),
        unloaded=str(error),
    )


def _not_run(clauses: Sequence[Clause], error: CannotRun) -> list[ClauseResult]:
    """Return the results of clauses that could not run, with the reason."""
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

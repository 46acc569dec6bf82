"""One whole run: adapters checked one after another, writers notified, cases saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.profiles import DEFAULT
from moe_routing.conformance.checking.results import (
    INTERRUPTED,
    AdapterResult,
    ClauseResult,
    RunResult,
)
from moe_routing.conformance.run.engine import (
    AdapterFinished,
    AdapterStarted,
    ClauseFinished,
    ClauseStarted,
    Hints,
    RunEvent,
    adapter_result,
    no_hints,
    run,
)
from moe_routing.conformance.run.environment import environment
from moe_routing.conformance.run.seat import InProcess, Seat
from moe_routing.conformance.run.written import with_case_files
from moe_routing.implementations import Adapter
from moe_routing.reference.checks import counted


class Writer(Protocol):
    """Receives the progress of a run: each adapter, each clause, the end."""

    def begin(self, adapter: str, clauses: int) -> None:
        """An adapter is about to be checked."""

    def started(self, event: ClauseStarted) -> None:
        """A clause is about to run."""

    def finished(self, event: ClauseFinished) -> None:
        """A clause has run."""

    def end(self, result: AdapterResult) -> None:
        """An adapter that was begun has been checked, in part if the run was interrupted."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run besides its plan, for its report and its files.

    ``min_cases`` is the floor of ``RunResult``. Failing cases are written under ``cases``, and
    saved under ``examples`` for later runs. ``device`` and ``options`` are what the command
    that repeats a clause must name. The run ends after ``most_red`` red clauses, where given.
    """

    profile: str = DEFAULT
    min_cases: int = 0
    cases: Path | None = None
    examples: Path | None = None
    device: str = "cpu"
    options: tuple[str, ...] = ()
    most_red: int | None = None


class _Enough(Exception):
    """As many clauses are red as the run was to find."""


def check(
    seats: Mapping[str, Callable[[], Seat]],
    plan: Plan,
    settings: Settings | None = None,
    *,
    jobs: int = 1,
    hints: Hints = no_hints,
    writers: Sequence[Writer] = (),
) -> RunResult:
    """Run ``plan`` on every adapter and return what was found.

    ``seats`` maps the references that name the adapters (see ``load_adapter``) to what opens
    a seat for them (see ``in_process``); ``jobs`` clauses run at a time. ``hints`` says which
    known bugs an adapter behaves like. An interrupt, and as many red clauses as the settings
    allow, end the run early, with a result that says so.
    """
    session = _Session(settings or Settings(), writers, hints)
    ended = ""
    try:
        for event in run(seats, plan, jobs=jobs, hints=hints):
            session.take(event)
    except (KeyboardInterrupt, _Enough) as early:
        ended = str(early) or INTERRUPTED
        session.end_early()
    return RunResult(
        profile=session.settings.profile,
        seed=plan.seed,
        max_examples=plan.max_examples,
        environment=environment(),
        adapters=tuple(session.results),
        min_cases=session.settings.min_cases,
        ended=ended,
    )


def _itself(adapter: Adapter) -> Adapter:
    return adapter


def in_process(adapters: Mapping[str, Adapter], plan: Plan) -> dict[str, Callable[[], Seat]]:
    """Return what opens a seat in this process for each of these adapters."""
    return {
        reference: partial(InProcess, partial(_itself, adapter), plan)
        for reference, adapter in adapters.items()
    }


@dataclass
class _Session:
    """The results of a run so far, and the writers that it notifies."""

    settings: Settings
    writers: Sequence[Writer]
    hints: Hints
    results: list[AdapterResult] = field(default_factory=list)
    begun: AdapterStarted | None = None
    found: list[ClauseResult] = field(default_factory=list)
    red: int = 0

    def take(self, event: RunEvent) -> None:
        """Record one event, and pass it on."""
        if isinstance(event, AdapterStarted):
            self.begun, self.found = event, []
            for writer in self.writers:
                writer.begin(event.about.name, event.clauses)
        elif isinstance(event, AdapterFinished):
            self._end(event.result)
        elif isinstance(event, ClauseFinished):
            self.found.append(event.result)
            for writer in self.writers:
                writer.finished(event)
            self._count(event.result)
        else:
            for writer in self.writers:
                writer.started(event)

    def _count(self, result: ClauseResult) -> None:
        """Count a red clause. Errors: ``_Enough``."""
        self.red += not result.green
        if self.settings.most_red is not None and self.red >= self.settings.most_red:
            raise _Enough(f"stopped after {counted(self.red, 'red clause')}")

    def end_early(self) -> None:
        """End the adapter that was being checked with what was found until then."""
        if self.begun is not None:
            reference, about = self.begun.reference, self.begun.about
            hints = self.hints(self.found, about.capabilities)
            self._end(adapter_result(reference, about, self.found, hints=hints))

    def _end(self, result: AdapterResult) -> None:
        settings = self.settings
        twins = sum(each.name == result.name for each in self.results)
        kept = with_case_files(result, settings.cases, settings.examples, twins)
        kept = replace(kept, device=settings.device, options=settings.options)
        self.results.append(kept)
        begun, self.begun = self.begun, None
        if begun is not None:
            for writer in self.writers:
                writer.end(kept)

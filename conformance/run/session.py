"""One whole run: adapters checked one after another, writers told, cases kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from moe_routing.conformance.cases.case import case_folder, save_case
from moe_routing.conformance.cases.kept import keep_example
from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.known.divergence import Divergence, check_ids, load_known
from moe_routing.conformance.report.report import environment
from moe_routing.conformance.run.engine import (
    AdapterFinished,
    AdapterStarted,
    ClauseFinished,
    ClauseStarted,
    Event,
    Plan,
    adapter_result,
    run,
)
from moe_routing.conformance.run.seat import InProcess, Seat
from moe_routing.implementations import Adapter, shipped_known


class Writer(Protocol):
    """What a run tells: each adapter, each clause, the end."""

    def begin(self, adapter: str, clauses: int) -> None:
        """An adapter is about to be checked."""

    def started(self, event: ClauseStarted) -> None:
        """A clause is about to run."""

    def finished(self, event: ClauseFinished) -> None:
        """A clause has run."""

    def end(self, result: AdapterResult) -> None:
        """An adapter that was begun has been checked, as far as the run came."""


def check(
    seats: Mapping[str, Callable[[], Seat]],
    plan: Plan,
    *,
    profile: str = "ci",
    min_cases: int = 0,
    jobs: int = 1,
    cases: Path | None = None,
    examples: Path | None = None,
    device: str = "cpu",
    options: Sequence[str] = (),
    writers: Sequence[Writer] = (),
) -> RunResult:
    """Run ``plan`` on every adapter and return what was found.

    ``seats`` maps the references that name the adapters (see ``load_adapter``) to what opens
    a seat for them (see ``in_process``); failing cases are written under ``cases``, and
    kept under ``examples`` for later runs. An interrupt ends the run early, with a result
    that says so.
    """
    told = _Told(
        writers=writers, folder=cases, examples=examples, device=device, options=tuple(options)
    )
    interrupted = False
    try:
        for event in run(seats, plan, jobs=jobs):
            told.tell(event)
    except KeyboardInterrupt:
        interrupted = True
        told.end_early()
    return RunResult(
        profile=profile,
        seed=plan.seed,
        max_examples=plan.max_examples,
        environment=environment(),
        adapters=tuple(told.results),
        min_cases=min_cases,
        partial=interrupted,
    )


def in_process(adapters: Mapping[str, Adapter], plan: Plan) -> dict[str, Callable[[], Seat]]:
    """Return what opens a seat in this process for each of these adapters."""
    return {
        reference: partial(InProcess, lambda adapter=adapter: adapter, plan)
        for reference, adapter in adapters.items()
    }


def known_divergences(files: Sequence[Path]) -> list[Divergence]:
    """Read the given lists, or, with none given, the ones shipped with the adapters.

    Those are marked ``shipped``. Errors: ``KnownError``.
    """
    known = [entry for file in files or shipped_known() for entry in load_known(file)]
    check_ids(known)  # over all the files
    return known if files else [replace(entry, shipped=True) for entry in known]


@dataclass
class _Told:
    """What a run has told so far, and to whom."""

    writers: Sequence[Writer]
    folder: Path | None
    examples: Path | None
    device: str
    options: tuple[str, ...]
    results: list[AdapterResult] = field(default_factory=list)
    begun: AdapterStarted | None = None
    found: list[ClauseResult] = field(default_factory=list)

    def tell(self, event: Event) -> None:
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
        else:
            for writer in self.writers:
                writer.started(event)

    def end_early(self) -> None:
        """End the adapter that was being checked with what was found until then."""
        if self.begun is not None:
            self._end(adapter_result(self.begun.reference, self.begun.about, self.found))

    def _end(self, result: AdapterResult) -> None:
        twins = sum(each.name == result.name for each in self.results)
        kept = _keep_cases(result, self.folder, twins)
        kept = replace(kept, device=self.device, options=self.options)
        for each in result.clauses if self.examples is not None else ():
            if each.case is not None:
                keep_example(self.examples, each.id, each.case)
        self.results.append(kept)
        begun, self.begun = self.begun, None
        if begun is not None:
            for writer in self.writers:
                writer.end(kept)


def _keep_cases(result: AdapterResult, folder: Path | None, twins: int) -> AdapterResult:
    """Write the failing cases of an adapter; ``twins`` of its name were checked before it."""
    if folder is None:
        return result
    name = case_folder(result.name) + (f"-{twins + 1}" if twins else "")
    kept = []
    for each in result.clauses:
        if each.case is not None:
            path = folder / name / f"{each.id}.json"
            save_case(each.case, path, clause=each.id)
            each = replace(each, case_file=str(path))
        kept.append(each)
    return replace(result, clauses=tuple(kept))

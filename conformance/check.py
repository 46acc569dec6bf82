"""One whole run: adapters checked one after another, writers told, cases kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from moe_routing.conformance.case import save_case
from moe_routing.conformance.engine import (
    AdapterFinished,
    ClauseFinished,
    ClauseStarted,
    Plan,
    run,
)
from moe_routing.conformance.known import Divergence, load_known
from moe_routing.conformance.report import environment
from moe_routing.conformance.results import AdapterResult, RunResult
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
        """An adapter has been checked."""


def check(
    adapters: Mapping[str, Adapter],
    plan: Plan,
    *,
    profile: str = "ci",
    cases: Path | None = None,
    writers: Sequence[Writer] = (),
) -> RunResult:
    """Run ``plan`` on every adapter and return what was found.

    ``adapters`` maps the references that name them (see ``load_adapter``) to adapters;
    failing cases are written under ``cases``. Errors: ``BackendMissing``.
    """
    results = []
    for reference, adapter in adapters.items():
        for writer in writers:
            writer.begin(adapter.name, len(plan.clauses))
        for event in run(adapter, plan):
            if isinstance(event, AdapterFinished):
                twins = sum(result.name == adapter.name for result in results)
                found = replace(event.result, reference=reference)
                results.append(_keep_cases(found, cases, twins))
                continue
            for writer in writers:
                writer.started(event) if isinstance(event, ClauseStarted) else writer.finished(
                    event
                )
        for writer in writers:
            writer.end(results[-1])
    return RunResult(
        profile=profile,
        seed=plan.seed,
        max_examples=plan.max_examples,
        environment=environment(),
        adapters=tuple(results),
    )


def known_divergences(files: Sequence[Path]) -> list[Divergence]:
    """Read the given lists, or, with none given, the ones shipped with the adapters.

    Errors: ``KnownError``.
    """
    return [entry for file in files or shipped_known() for entry in load_known(file)]


def _keep_cases(result: AdapterResult, folder: Path | None, twins: int) -> AdapterResult:
    """Write the failing cases of an adapter; ``twins`` of its name were checked before it."""
    if folder is None:
        return result
    name = result.name.replace("/", "_") + (f"-{twins + 1}" if twins else "")
    kept = []
    for each in result.clauses:
        if each.case is not None:
            path = folder / name / f"{each.id}.json"
            save_case(each.case, path, clause=each.id)
            each = replace(each, case_file=str(path))
        kept.append(each)
    return replace(result, clauses=tuple(kept))

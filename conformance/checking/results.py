"""Results: what a run found, as frozen values that writers and callers read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.checking.status import STATUSES, Status
from moe_routing.conformance.explain.failure import Failure, lines_of
from moe_routing.conformance.explain.onset import Onset


@dataclass(frozen=True, kw_only=True)
class ClauseResult:
    """One clause on one backend.

    ``constructed`` and ``examples`` count the cases run, ``tokens`` their tokens, frozen
    at the first failure; ``events`` maps each event to ``witnessed``, ``unreachable``,
    ``known`` (only seen where a divergence is known) or ``missing``. ``case`` is the
    smallest failing case, ``case_file`` where it was written, ``unwritten`` why it could
    not be, ``failure`` its story, ``message`` one line. ``found`` is the case that failed
    first, before it was made smaller, with its failure, where it fails by itself.
    ``divergences`` names the known ones, with their reasons; ``findings`` are notes on them,
    and turn nothing red.
    ``past`` names the edges (``checking.edges``) that were left out, or granted, since another
    clause is red for them.
    """

    id: str
    level: str
    chapter: str
    status: Status
    constructed: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    allowance_used: float = 0.0
    message: str = ""
    failure: Failure | None = None
    case: AnyCase | None = None
    found: tuple[AnyCase, Failure] | None = None
    onsets: tuple[Onset, ...] = ()
    case_file: str | None = None
    unwritten: tuple[str, ...] = ()
    events: dict[str, str] = field(default_factory=dict)
    divergences: dict[str, str] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    drawn: Counter[str] = field(default_factory=Counter)
    past: tuple[str, ...] = ()

    @property
    def green(self) -> bool:
        """Whether the result keeps a run green."""
        return STATUSES[self.status].green

    @property
    def story(self) -> tuple[str, ...]:
        """What went wrong, line by line, where something did."""
        return () if self.green else lines_of(self.failure, self.case, self.onsets)


@dataclass(frozen=True, kw_only=True)
class AdapterResult:
    """Every clause on one backend, with what it wraps and what it declares.

    ``reference`` is how the run named the adapter, as a replay must name it; ``in_spec``
    counts the clauses of the specification for its methods, run or not (None: all were run);
    ``threads`` are those that the backend's framework computes with, where known;
    ``start_seconds`` is what its start took before the first clause: imports and a first call;
    ``device`` and ``options`` are what the command that repeats a clause must name.
    ``unloaded`` says why the adapter could not run, at all or any more; the clauses left
    have the status of that error. ``untried`` counts the clauses that were skipped, by the method
    of another protocol that the adapter lacks: they are no part of ``in_spec``. ``hints`` say
    which known bugs a failing backend behaves like.
    """

    name: str
    package: str | None
    version: str | None
    numerics: list[str]
    clauses: tuple[ClauseResult, ...]
    in_spec: int | None = None
    reference: str = ""
    threads: int | None = None
    start_seconds: float | None = None
    device: str = "cpu"
    options: tuple[str, ...] = ()
    unloaded: str = ""
    untried: Mapping[str, int] = field(default_factory=dict)
    hints: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing found here turns a run red."""
        return all(result.green for result in self.clauses)

    @property
    def checked(self) -> bool:
        """Whether any clause applied and held, known divergences aside."""
        return any(STATUSES[result.status].held for result in self.clauses)

    def summary(self) -> dict[str, int]:
        """Count the clauses by status; ``applicable`` are those the backend supports.

        ``in_spec`` is the whole specification, so that neither declaring a clause
        unsupported nor leaving it out raises the share ``passed / in_spec``.
        """
        counts = Counter(result.status for result in self.clauses)
        return {
            "passed": counts["pass"],
            "failed": counts["fail"] + counts["fixed"],
            "known": counts["known"],
            "inconclusive": counts["inconclusive"],
            "unsupported": counts["unsupported"],
            "errors": counts["error"] + counts["crash"] + counts["timeout"],
            "applicable": len(self.clauses) - counts["unsupported"],
            "in_spec": self.in_spec or len(self.clauses),
        }

    @property
    def cases(self) -> int:
        """How many cases the backend ran."""
        return sum(each.constructed + each.examples for each in self.clauses)

    def drawn(self) -> Counter[str]:
        """Count the cases run, by dtype and by recipe, as ``dtype:x`` and ``recipe:y``."""
        return sum((result.drawn for result in self.clauses), Counter())


INTERRUPTED = "interrupted"
"""Why a run ended early that somebody, or the system, interrupted."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A whole run: the backends' results and the settings that made them.

    ``min_cases`` is the floor: an adapter that ran fewer cases was not checked.
    ``ended`` says in words why the run ended early, if it did: then it is ``partial``, and holds
    what had been found by then.
    """

    profile: str
    seed: int
    max_examples: int
    environment: dict[str, Any]
    adapters: tuple[AdapterResult, ...]
    min_cases: int = 0
    ended: str = ""

    @property
    def partial(self) -> bool:
        """Whether the run ended before everything was checked."""
        return bool(self.ended)

    @property
    def too_few(self) -> tuple[AdapterResult, ...]:
        """The adapters that ran fewer cases than the floor."""
        return tuple(each for each in self.adapters if each.cases < self.min_cases)

    @property
    def exit_code(self) -> int:
        """0 where the run is whole and green, 2 where an adapter could not run, else 1.

        Green is every applicable clause pass or known, on every adapter at least one, and
        as many cases as the floor.
        """
        if any(adapter.unloaded for adapter in self.adapters):
            return 2
        checked = self.adapters and all(adapter.checked for adapter in self.adapters)
        green = checked and not self.partial and not self.too_few
        return 0 if green and all(adapter.ok for adapter in self.adapters) else 1

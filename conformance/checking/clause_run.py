"""One clause on one adapter: its constructed cases, the search, and the smallest failure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.checking.outcome import Outcome, evaluate, own_fault
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.progress import Progress
from moe_routing.conformance.checking.region_width import Width, width
from moe_routing.conformance.checking.replay import Standing, replay_case, standings
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.checking.scope import adapter_scope
from moe_routing.conformance.checking.search import draw_cases
from moe_routing.conformance.checking.smallest import smallest_failure
from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.checking.target import Target
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.events import Event
from moe_routing.conformance.events.stock import STOCK
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.onset import Onset
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.trial.base import AnyTrial
from moe_routing.implementations import Adapter, BackendMissing


def check_clause(adapter: Adapter, clause: Clause, plan: Plan) -> ClauseResult:
    """Check one clause on one adapter, its known divergences included.

    Errors: ``BackendMissing``.
    """
    listed = plan.listed(adapter.name, clause)
    found = standings(listed, lambda case: replay_case(adapter, clause, case, repeats=plan.repeats))
    result = search_clause(adapter, clause, plan, found)
    if result.status != "known":
        return result
    return with_widths(result, listed, lambda known: width(adapter, clause, plan, known))


def search_clause(
    adapter: Adapter, clause: Clause, plan: Plan, known: Mapping[str, Standing]
) -> ClauseResult:
    """Check one clause outside the regions of what is known.

    ``known`` says, by the ids of the clause's known divergences, whether they are still there.
    Errors: ``BackendMissing``.
    """
    return _ClauseRun(Target(adapter, clause, plan), known).result()


def with_widths(
    result: ClauseResult, listed: Sequence[Divergence], measured: Callable[[Divergence], Width]
) -> ClauseResult:
    """Add to a result which regions of its known divergences cover too much.

    For lists of the user's own: a test checks the shipped ones.
    """
    widths = {known: measured(known) for known in listed if not known.shipped}
    findings = tuple(each.finding(known) for known, each in widths.items() if each.too_wide)
    return replace(result, findings=findings)


@dataclass(frozen=True, kw_only=True)
class _Ending:
    """How a run of a clause ends: the part of its result that is not counted."""

    status: Status
    message: str = ""
    failure: Failure | None = None
    case: AnyCase | None = None
    found: tuple[AnyCase, Failure] | None = None
    onsets: tuple[Onset, ...] = ()
    divergences: dict[str, str] = field(default_factory=dict)


@dataclass
class _ClauseRun:
    """One clause on one adapter, phase by phase: the first phase that decides ends it."""

    target: Target
    known: Mapping[str, Standing]
    progress: Progress = field(default_factory=Progress)
    found: tuple[AnyCase, Outcome] | None = None
    until: float = math.inf
    late: bool = False
    idle: str = ""
    lacking: str = ""

    def result(self) -> ClauseResult:
        began, clause, progress = time.perf_counter(), self.target.clause, self.progress
        ending = self._guarded()
        return ClauseResult(
            id=clause.id,
            level=clause.level,
            chapter=clause.chapter,
            status=ending.status,
            constructed=progress.constructed,
            examples=progress.examples,
            tokens=progress.tokens,
            seconds=time.perf_counter() - began,
            allowance_used=progress.used,
            message=ending.message,
            failure=ending.failure,
            case=ending.case,
            found=ending.found,
            onsets=ending.onsets,
            events=dict(progress.events),
            divergences=ending.divergences,
            drawn=progress.drawn,
            past=self.target.plan.past,
        )

    def _guarded(self) -> _Ending:
        try:
            return self._ending()
        except BackendMissing:
            raise
        except Exception as error:  # calls are made in `evaluate`: the rest is the suite's
            case = self.found[0] if self.found else None
            return _Ending(status="error", message=own_fault(error), case=case)

    def _ending(self) -> _Ending:
        phases = (
            *(self._scope, self._gone, self._constructed, self._reachable),
            *(self._kept, self._drawn, self._unseen),
        )
        for phase in phases:
            if (ending := phase()) is not None:
                return ending
        return self._passed()

    def _scope(self) -> _Ending | None:
        """End where the clause does not apply to the adapter."""
        target, dtype = self.target, self.target.plan.dtype
        claims = target.capabilities
        reason = adapter_scope(target.adapter, target.clause, claims, target.is_known)
        if dtype is not None and dtype not in claims.dtypes:
            reason = f"the adapter claims no {dtype} inputs"
        return None if reason is None else _Ending(status="unsupported", message=reason)

    def _gone(self) -> _Ending | None:
        """End where a known divergence is gone, or cannot be shown to be there."""
        listed, reasons = self.target.listed, self._reasons()
        gone = [each for each in listed if self.known[each.id] == "gone"]
        if gone:
            return _Ending(status="fixed", message=_fixed(gone), divergences=reasons)
        outside = [each for each in listed if self.known[each.id] == "unclaimed"]
        if outside:
            return _Ending(status="inconclusive", message=_unclaimed(outside), divergences=reasons)
        return None

    def _constructed(self) -> _Ending | None:
        """Check the constructed case of every event."""
        for event in self.target.witnesses:
            self._check_event(event)
            if self.found is not None:
                return self._broken()
        return None

    def _check_event(self, event: Event) -> None:
        """Check what an event constructs, with what other clauses have found of it."""
        checked = STOCK.checked(event, self.target.narrowed)
        for stocked in islice(checked, self.target.plan.series):
            trial = self.target.trial(stocked.case, stocked.memo)
            if self.target.is_known(trial):
                self.progress.note(event, "known")
                continue
            self.progress.constructed += 1
            self._note(event, self._check(trial))
            if self.found is not None:
                return
        self.progress.note(event, "unreachable")

    def _note(self, event: Event, outcome: Outcome) -> None:
        """Note what became of an event whose case was checked, or left nothing to check."""
        self.progress.note(event, outcome.seen)
        self.idle = outcome.unchecked or self.idle
        self.lacking = outcome.unchecked if outcome.due else self.lacking

    def _reachable(self) -> _Ending | None:
        """End where no event of the clause is reachable."""
        if self.target.listed or self.progress.reachable or self.idle:
            return None
        message = "none of its events is reachable under the claims"
        return _Ending(status="unsupported", message=message)

    def _kept(self) -> _Ending | None:
        """Check the cases of earlier runs that are still within the claims."""
        for case in self.target.plan.kept.get(self.target.clause.id, ()):
            trial = self.target.trial(case)
            if self.target.includes(case) and not self.target.is_known(trial):
                self.progress.constructed += 1
                self._check(trial)
            if self.found is not None:
                return self._broken()
        return None

    def _drawn(self) -> _Ending | None:
        """Search for a case that breaks the clause."""
        plan = self.target.plan
        if plan.seconds is not None:
            self.until = time.monotonic() + plan.seconds
        draw_cases(
            self.target.clause,
            self.target.narrowed,
            suite_seed=plan.seed,
            max_examples=plan.max_examples,
            enough=self._enough,
        )
        return None if self.found is None else self._broken()

    def _unseen(self) -> _Ending | None:
        """End where a reachable event was not seen, or where nothing was checked.

        Past an edge, a missing event is expected.
        """
        if self.idle and not self.target.listed and not self.progress.reachable:
            return _Ending(status="unsupported", message=f"nothing to check: {self.idle}")
        missing = self.progress.missing
        if not missing or self.target.edges:
            return None
        why = f": {self.lacking}" if self.lacking else ""
        return _Ending(status="inconclusive", message=f"never saw {', '.join(missing)}{why}")

    def _passed(self) -> _Ending:
        """End as a pass, or as known where known divergences left nothing to check."""
        listed, reasons = self.target.listed, self._reasons()
        if listed or (reasons and not self.progress.constructed + self.progress.examples):
            ids = "; ".join(each.id for each in listed or self.target.excluded)
            return _Ending(status="known", message=ids, divergences=reasons)
        notes = [f"outside {', '.join(reasons)}"] if reasons else []
        notes += [edge.words for edge in self.target.edges]
        notes += ["stopped by the time budget"] if self.late else []
        return _Ending(status="pass", message="; ".join(notes), divergences=reasons)

    def _broken(self) -> _Ending:
        assert self.found is not None
        first, broken = self.found
        case, outcome = smallest_failure(self.target, first, broken)
        alone = broken.failure is not None and broken.failure.case is None
        return _Ending(
            status=outcome.status,
            message=outcome.words,
            failure=outcome.reported,
            case=case,
            found=(first, broken.failure) if alone and broken.failure else None,
            onsets=outcome.onsets,
        )

    def _enough(self, case: AnyCase) -> bool:
        """Check a drawn case, and return whether it failed, or whether time is up."""
        self.late = time.monotonic() > self.until
        if self.late:
            return True
        trial = self.target.trial(case)
        if not self.target.is_known(trial):
            self.progress.examples += 1
            self._check(trial)
        return self.found is not None

    def _check(self, trial: AnyTrial) -> Outcome:
        clause = self.target.clause
        self.progress.begin(trial)
        outcome = evaluate(clause, trial)
        if outcome.broken:
            own = outcome.failure.case if outcome.failure else None
            self.found = own or trial.case, outcome
        if not outcome.unchecked:
            self.progress.end(trial, self.target.witnesses)
        return outcome

    def _reasons(self) -> dict[str, str]:
        return {each.id: each.reason for each in self.target.excluded}


def _fixed(gone: Sequence[Divergence]) -> str:
    return f"the known divergence {_names(gone)} is gone: remove its entry{_places(gone)}"


def _unclaimed(outside: Sequence[Divergence]) -> str:
    fix = "add one that is, or take the adapter out of its entry"
    names = _names(outside)
    return f"no witness of the known divergence {names} is claimed: {fix}{_places(outside)}"


def _names(listed: Sequence[Divergence]) -> str:
    return ", ".join(each.id for each in listed)


def _places(listed: Sequence[Divergence]) -> str:
    places = ", ".join(each.place for each in listed if each.place)
    return f" ({places})" if places else ""

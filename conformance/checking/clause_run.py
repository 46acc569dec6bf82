"""One clause on one adapter: its constructed cases, the search, and the smallest failure."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moe_routing.conformance.cases.case import Case, SharedCase
from moe_routing.conformance.checking.outcome import Outcome, evaluate, own_fault
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.region_width import Width, covered, width
from moe_routing.conformance.checking.replay import replay_case, still_breaking
from moe_routing.conformance.checking.results import ClauseResult, Status
from moe_routing.conformance.checking.scope import why_unsupported
from moe_routing.conformance.checking.search import draw_cases
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.generators.reducer import reduce_case
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.trial.trial import SharedTrial, Trial, trial_of
from moe_routing.implementations import Adapter, BackendMissing, Capabilities


def check_clause(adapter: Adapter, clause: Clause, plan: Plan) -> ClauseResult:
    """Check one clause on one adapter, its known divergences included.

    Errors: ``BackendMissing``.
    """
    listed = plan.listed(adapter.name, clause)
    breaks = still_breaking(listed, lambda case: replay_case(adapter, clause, case))
    result = search_clause(adapter, clause, plan, breaks)
    if result.status != "known":
        return result
    return with_widths(result, {each: width(adapter, clause, plan, each) for each in listed})


def search_clause(
    adapter: Adapter, clause: Clause, plan: Plan, breaks: Mapping[str, bool]
) -> ClauseResult:
    """Check one clause outside the regions of what is known.

    ``breaks`` tells, by the ids of the clause's known divergences, whether their witnesses
    still break it. Errors: ``BackendMissing``.
    """
    return _ClauseRun(adapter, clause, plan, breaks).result()


def with_widths(result: ClauseResult, widths: Mapping[Divergence, Width]) -> ClauseResult:
    """Add to a result what was found about the regions of its known divergences."""
    findings = tuple(each.finding(known) for known, each in widths.items() if each.too_wide)
    return replace(result, findings=findings)


def ask_alone(
    adapter: Adapter, clause: Clause, plan: Plan, case: Case | SharedCase
) -> Outcome | None:
    """Put one case to the clause; None where it is outside the claims, or known to diverge."""
    return _ClauseRun(adapter, clause, plan, {}).ask_alone(case)


@dataclass
class _ClauseRun:
    """The progress of one clause on one adapter."""

    adapter: Adapter
    clause: Clause
    plan: Plan
    breaks: Mapping[str, bool]
    constructed: int = 0
    examples: int = 0
    tokens: int = 0
    used: float = 0.0
    until: float = math.inf
    late: bool = False
    events: dict[str, str] = field(default_factory=dict)
    drawn: Counter[str] = field(default_factory=Counter)
    found: tuple[Case | SharedCase, Outcome] | None = None

    def result(self) -> ClauseResult:
        began = time.perf_counter()
        capabilities = self.adapter.capabilities()
        try:
            status, extra = self._run(capabilities)
        except BackendMissing:
            raise
        except Exception as error:  # calls are made in `evaluate`: the rest is the suite's
            case = self.found[0] if self.found else None
            status, extra = "error", {"message": own_fault(error), "case": case}
        return ClauseResult(
            id=self.clause.id,
            level=self.clause.level,
            chapter=self.clause.chapter,
            status=status,
            constructed=self.constructed,
            examples=self.examples,
            tokens=self.tokens,
            seconds=time.perf_counter() - began,
            allowance_used=self.used,
            events=self.events,
            drawn=self.drawn,
            **extra,
        )

    def ask_alone(self, case: Case | SharedCase) -> Outcome | None:
        self._prepare(self.adapter.capabilities())
        trial = self._trial(case)
        if not self._in_scope(case):
            return None
        return None if self._is_known(trial) else evaluate(self.clause, trial)

    def _prepare(self, capabilities: Capabilities) -> None:
        self.narrowed = self.clause.narrowed(capabilities)
        self.excluded = self.plan.touching(self.adapter.name, self.clause)

    def _run(self, capabilities: Capabilities) -> tuple[Status, dict[str, Any]]:
        if (reason := why_unsupported(self.adapter, self.clause, capabilities)) is not None:
            return "unsupported", {"message": reason}
        self._prepare(capabilities)
        listed = self.plan.listed(self.adapter.name, self.clause)
        reasons = {d.id: d.reason for d in self.excluded}
        if gone := [d for d in listed if not self.breaks[d.id]]:
            return "fixed", {"message": _fixed(gone), "divergences": reasons}
        self._constructed_cases()
        if not listed and set(self.events.values()) <= {"unreachable"}:
            return "unsupported", {"message": "none of its events is reachable under the claims"}
        if self.found is None:
            self._kept_cases()
        if self.found is None:
            self._search()
        if self.found is not None:
            return self._broken()
        if missing := [slug for slug, seen in self.events.items() if seen == "missing"]:
            return "inconclusive", {"message": f"never saw {', '.join(missing)}"}
        if listed or (reasons and not self.constructed + self.examples):
            known = listed or self.excluded  # what left nothing to ask is no pass
            return "known", {"message": "; ".join(d.id for d in known), "divergences": reasons}
        notes = [f"outside {', '.join(reasons)}"] if reasons else []
        notes += ["stopped by the time budget"] if self.late else []
        return "pass", {"message": "; ".join(notes), "divergences": reasons}

    def _constructed_cases(self) -> None:
        for event in self.clause.witnesses(bulk=self.plan.bulk):
            case = event.constructed(self.narrowed)
            if case is None:
                self.events.setdefault(event.slug, "unreachable")
            elif self._is_known(self._trial(case)):
                self.events.setdefault(event.slug, "known")
            else:
                self.events.setdefault(event.slug, "missing")
                self.constructed += 1
                self._ask(self._trial(case))
            if self.found is not None:
                return

    def _kept_cases(self) -> None:
        """Ask about the cases of earlier runs that are still within the claims."""
        for case in self.plan.kept.get(self.clause.id, ()):
            trial = self._trial(case)
            if self.found is None and self._in_scope(case) and not self._is_known(trial):
                self.constructed += 1
                self._ask(trial)

    def _search(self) -> None:
        if self.plan.seconds is not None:
            self.until = time.monotonic() + self.plan.seconds
        draw_cases(
            self.clause,
            self.narrowed,
            suite_seed=self.plan.seed,
            max_examples=self.plan.max_examples,
            enough=self._asked_enough,
        )

    def _asked_enough(self, case: Case | SharedCase) -> bool:
        """Put a drawn case, and tell whether it failed, or whether time is up."""
        self.late = time.monotonic() > self.until
        if self.late:
            return True
        trial = self._trial(case)
        if not self._is_known(trial):
            self.examples += 1
            self._ask(trial)
        return self.found is not None

    def _trial(self, case: Case | SharedCase) -> Trial | SharedTrial:
        return trial_of(self.adapter, case, self.clause.method, self._is_known)

    def _ask(self, trial: Trial | SharedTrial) -> None:
        case = trial.case
        self.tokens += len(case.inputs.hidden)
        self.drawn.update({f"recipe:{case.recipe}": 1, f"dtype:{case.inputs.dtype}": 1})
        outcome = evaluate(self.clause, trial)
        if outcome.broken:
            own = outcome.failure.case if outcome.failure else None
            self.found = own or case, outcome
        self._witness(trial)
        if isinstance(trial, Trial) and "verdict" in vars(trial):
            self.used = max(self.used, trial.verdict.allowance_used)

    def _witness(self, trial: Trial | SharedTrial) -> None:
        for event in self.clause.witnesses(bulk=self.plan.bulk):
            if self.events.get(event.slug) == "witnessed":
                continue
            if event.occurs(trial.bounds if isinstance(trial, Trial) else trial.case):
                self.events[event.slug] = "witnessed"

    def _is_known(self, trial: Trial | SharedTrial) -> bool:
        """Tell whether a known divergence covers the case; none covers a bad configuration."""
        return bool(self.excluded) and covered(trial, self.excluded)

    def _broken(self) -> tuple[Status, dict[str, Any]]:
        again = self._again()
        if again.broken:
            reduce_case(self.found[0], lambda smaller: self._fails_alike(smaller, again))
            again = self._again()
        case, seen = self.found
        told = again if again.broken else seen.unsteady()
        return told.status, {"message": told.words, "failure": told.failure, "case": case}

    def _again(self) -> Outcome:
        """Repeat the call that was found broken."""
        outcome = evaluate(self.clause, self._trial(self.found[0]))
        if outcome.broken:
            self.found = self.found[0], outcome
        return outcome

    def _fails_alike(self, case: Case | SharedCase, broken: Outcome) -> bool:
        """Tell whether a smaller case breaks in the same way; it is the one found, if so."""
        trial = self._trial(case)
        if not self._in_scope(case) or self._is_known(trial):
            return False
        outcome = evaluate(self.clause, trial)
        if alike := outcome.kind == broken.kind:
            self.found = case, outcome
        return alike

    def _in_scope(self, case: Case | SharedCase) -> bool:
        """Tell whether another case, too, belongs to the clause and to the claims."""
        if self.clause.strategy is not None or isinstance(case, SharedCase):
            return True
        return self.narrowed.admits(case.config, case.inputs)


def _fixed(gone: list[Divergence]) -> str:
    names = ", ".join(each.id for each in gone)
    places = ", ".join(each.place for each in gone if each.place)
    line = f" ({places})" if places else ""
    return f"the known divergence {names} is gone: remove its entry{line}"

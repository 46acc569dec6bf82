"""The nearest mutants: which known bug a failing backend behaves like, as a hint to the cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.checking.scope import adapter_scope
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.zoo.families import FAMILIES
from moe_routing.conformance.zoo.residents import MUTANTS
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.implementations import Capabilities, Numerics

_SHOWN = 3
"""The most mutants that a report names: more is no hint."""

_WEIGHED = 8
"""The most mutants alike in every failing case that are told apart by what the backend passes."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """A mutant that fails as a backend does: the same clauses, on ``alike`` of its ``cases``."""

    mutant: str
    family: str
    alike: int
    cases: int

    @property
    def words(self) -> str:
        """The hint in one line."""
        return (
            f"behaves like `{self.mutant}` ({FAMILIES[self.family]}), "
            f"on {self.alike} of {self.cases} failing cases"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Question:
    """A clause with a case of it, with a memo that its trials of all mutants share."""

    clause: Clause
    case: AnyCase
    memo: CaseMemo = field(default_factory=CaseMemo)

    def put(self, mutant: StagedRouter) -> Failure | None:
        """Return how ``mutant`` fails, or None where it does not, or cannot be asked."""
        if adapter_scope(mutant, self.clause, mutant.capabilities()) is not None:
            return None
        trial = trial_of(mutant, self.case, self.clause.method, memo=self.memo)
        return evaluate(self.clause, trial).failure


def nearest(results: Sequence[ClauseResult], capabilities: Capabilities) -> tuple[Likeness, ...]:
    """Return the mutants that fail most of the failing cases in ``results`` at the same stage.

    The backend itself is not called. A case that fails in the same words, having been answered
    the same, counts twice: a mutant of the right cause may miss a case by how it breaks ties.
    Of mutants that are as alike, those come first that pass the constructed cases that the
    backend passes.
    """
    failing = [
        (_Question(clause=CLAUSES[each.id], case=each.case), each.failure)
        for each in results
        if each.status == "fail" and each.case is not None and each.failure is not None
        if each.failure.steady  # what comes and goes behaves like no mutant
    ]
    alike = {name: _alike(mutant.adapter(), failing) for name, mutant in MUTANTS.items()}
    likely = {name: sum(each) for name, each in alike.items() if 2 * each[0] > len(failing)}
    names = [name for name, likeness in likely.items() if likeness == max(likely.values())]
    names = _least_wrong(names, _constructed(results, capabilities, "fail"))
    names = _least_wrong(names[:_WEIGHED], _constructed(results, capabilities, "pass"))
    return tuple(
        Likeness(mutant=name, family=MUTANTS[name].family, alike=alike[name][0], cases=len(failing))
        for name in names[:_SHOWN]
    )


def _alike(mutant: StagedRouter, failing: Sequence[tuple[_Question, Failure]]) -> tuple[int, int]:
    """Count the cases in which ``mutant`` fails at the same stage, and in the same words."""
    stages = words = 0
    for asked, expected in failing:
        failure = asked.put(mutant)
        stages += failure is not None and failure.stage == expected.stage
        words += failure is not None and failure.summary == expected.summary
    return stages, words


def _least_wrong(names: Sequence[str], passed: Sequence[_Question]) -> list[str]:
    """Return the mutants that fail the fewest of the cases that the backend passes."""
    wrong = {
        name: sum(asked.put(MUTANTS[name].adapter()) is not None for asked in passed)
        for name in names
    }
    return [name for name in names if wrong[name] == min(wrong.values())]


def _constructed(
    results: Sequence[ClauseResult], capabilities: Capabilities, status: str
) -> list[_Question]:
    """Return the constructed cases that the backend passed in the clauses of ``status``."""
    plain = replace(capabilities, numerics=Numerics())
    return [
        _Question(clause=CLAUSES[each.id], case=case)
        for each in results
        if each.status == status
        for case in _passed_cases(each, plain)
    ]


def _passed_cases(result: ClauseResult, capabilities: Capabilities) -> list[AnyCase]:
    """Return a clause's constructed cases, up to the one that failed where no drawn one did."""
    clause = CLAUSES[result.id]
    narrowed = clause.narrowed(capabilities)
    made = (event.constructed(narrowed) for event in clause.witnesses())
    failed = result.status == "fail" and result.examples == 0
    passed = max(0, result.constructed - failed)
    return list(islice((case for case in made if case is not None), passed))

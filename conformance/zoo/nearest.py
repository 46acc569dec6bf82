"""The nearest mutants: which known bug a failing backend behaves like, as a hint to the cause.

A mutant is named for its answers, not for where it fails: it has to give the backend's own wrong
answers, and to be right where the backend is. That separates bugs: run on each mutant with its own
family left out, the stage alone names a wrong family for 131 of 173.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.checking.scope import adapter_scope
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.token_view import SlotView
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.zoo.families import FAMILIES
from moe_routing.conformance.zoo.residents import MUTANTS, Staged
from moe_routing.implementations import Capabilities, Numerics

_SHOWN = 3
"""The most mutants that a report names: more is no hint."""

_FEWEST = 2
"""The fewest failing cases for a hint: most bugs share any one wrong answer."""

_LUCKY = 20
"""A mutant may fail one in so many of the cases that the backend passes, such as a tie that it
breaks otherwise. Run on each mutant with its own family left out, one in twenty names a wrong
family for 13 of 177, one in two for 20."""

_WEIGHED = 8
"""The most mutants with the same wrong answers that are compared on the cases that pass."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """A mutant that answers as a backend does.

    It gives the same wrong answer on ``alike`` of the backend's failing ``cases``, and is right
    on ``right`` of the constructed cases that the backend ``passed``.
    """

    mutant: str
    family: str
    alike: int
    cases: int
    right: int
    passed: int

    @property
    def words(self) -> str:
        """The hint in one line, with its evidence."""
        return (
            f"behaves like `{self.mutant}` ({FAMILIES[self.family]}): the same wrong answer on "
            f"{self.alike} of {self.cases} failing cases, right on {self.right} of "
            f"{self.passed} passing ones"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Probe:
    """A clause with a case of it, with a memo that its trials of all mutants share."""

    clause: Clause
    case: AnyCase
    memo: CaseMemo = field(default_factory=CaseMemo)

    def failure_of(self, mutant: Staged) -> Failure | None:
        """Return how ``mutant`` fails, or None if it passes or the clause does not apply."""
        if adapter_scope(mutant, self.clause, mutant.capabilities()) is not None:
            return None
        trial = trial_of(mutant, self.case, self.clause.method, memo=self.memo)
        return evaluate(self.clause, trial).failure


def nearest(results: Sequence[ClauseResult], capabilities: Capabilities) -> tuple[Likeness, ...]:
    """Return the mutants that give the wrong answers in ``results``, and are right elsewhere.

    The backend itself is not called. None are returned where the evidence is thin: where
    errors outnumber failures, where only the layout is broken, where fewer than two cases fail,
    or where too many mutants are as near.
    """
    failing = _failing(results)
    if len(failing) < _FEWEST or all(failure.stage == "layout" for _, failure in failing):
        return ()
    alike = {name: _alike(mutant.adapter(), failing) for name, mutant in MUTANTS.items()}
    near = [name for name, number in alike.items() if 2 * number > len(failing)]
    near = sorted(near, key=lambda name: -alike[name])[:_WEIGHED]
    passed = _passed(results, capabilities) if near else []
    wrong = {name: _failures(MUTANTS[name].adapter(), passed) for name in near}
    near = [name for name in near if _LUCKY * wrong[name] <= len(passed)]
    best = min(((-alike[name], wrong[name]) for name in near), default=None)
    names = [name for name in near if (-alike[name], wrong[name]) == best]
    return tuple(
        Likeness(
            mutant=name,
            family=MUTANTS[name].family,
            alike=alike[name],
            cases=len(failing),
            right=len(passed) - wrong[name],
            passed=len(passed),
        )
        for name in (names if len(names) <= _SHOWN else [])
    )


def _failing(results: Sequence[ClauseResult]) -> list[tuple[_Probe, Failure]]:
    """Return the failing cases, none where errors outnumber them."""
    failing = [
        (_Probe(clause=CLAUSES[each.id], case=each.case), each.failure)
        for each in results
        if each.status == "fail" and each.case is not None and each.failure is not None
        if each.failure.steady  # every mutant is deterministic
    ]
    errors = sum(each.status in ("error", "crash", "timeout") for each in results)
    return failing if errors <= len(failing) else []


def _alike(mutant: Staged, failing: Sequence[tuple[_Probe, Failure]]) -> int:
    """Count the cases in which ``mutant`` gives the same wrong answer."""
    return sum(_same(probe.failure_of(mutant), expected) for probe, expected in failing)


def _failures(mutant: Staged, passed: Sequence[_Probe]) -> int:
    return sum(probe.failure_of(mutant) is not None for probe in passed)


def _same(failure: Failure | None, expected: Failure) -> bool:
    """Return whether two failures show the same wrong answer, at the same stage and token.

    Without a token to compare, the summaries have to be the same.
    """
    if failure is None or failure.stage != expected.stage or failure.token != expected.token:
        return False
    if failure.view is None or expected.view is None:
        return failure.summary == expected.summary
    return _same_slots(failure.view.slots, expected.view.slots)


def _same_slots(one: Sequence[SlotView], other: Sequence[SlotView]) -> bool:
    """Return whether the same experts were chosen, in any order, with the same weights."""
    if Counter(each.expert for each in one) != Counter(each.expert for each in other):
        return False
    pairs = zip(sorted(one, key=_by_expert), sorted(other, key=_by_expert), strict=True)
    return all(_same_weight(a, b) for a, b in pairs)


def _by_expert(slot: SlotView) -> tuple[int, float]:
    return slot.expert, slot.weight


def _same_weight(one: SlotView, other: SlotView) -> bool:
    """Return whether rounding, in proportion to what is permitted, explains the difference."""
    if one.weight == other.weight or one.permitted is None:
        return True
    low, high = one.permitted
    values = np.array([one.weight, other.weight, low, high])
    if not np.isfinite(values).all():
        return bool(np.isnan(values[:2]).all())
    share = abs(one.weight - other.weight) * max(abs(low), abs(high))
    return share <= (high - low) * max(abs(one.weight), abs(other.weight))


def _passed(results: Sequence[ClauseResult], capabilities: Capabilities) -> list[_Probe]:
    """Return the constructed cases that the backend passed, by the claims as they are."""
    plain = replace(capabilities, numerics=Numerics())
    return [
        _Probe(clause=CLAUSES[each.id], case=case)
        for each in results
        if each.status in ("pass", "fail") and not each.past  # past an edge, more is granted
        for case in _passed_cases(each, plain)
    ]


def _passed_cases(result: ClauseResult, capabilities: Capabilities) -> list[AnyCase]:
    """Return a clause's constructed cases, up to the one that failed where no drawn one did.

    Of a series the first stands for all: they are large.
    """
    clause = CLAUSES[result.id]
    narrowed = clause.narrowed(capabilities)
    made = (
        (case, number)
        for event in clause.witnesses()
        for number, case in enumerate(event.checked(narrowed))
    )
    failed = result.status == "fail" and result.examples == 0
    passed = max(0, result.constructed - failed)
    return [case for case, number in islice(made, passed) if number == 0]

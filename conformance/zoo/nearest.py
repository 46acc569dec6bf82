"""The nearest mutants: which known bug a failing backend behaves like, as a hint to the cause.

No hint is better than a wrong one. So a mutant is named only where no clause tells it from the
backend: it gives the backend's own wrong answer, number by number, on every failing case, is right
on every constructed case that the backend passes, and no mutant of another family is either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import numpy as np

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.checking.scope import adapter_scope
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.token_view import SlotView
from moe_routing.conformance.judge.selection import chosen_mask
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.zoo.families import FAMILIES
from moe_routing.conformance.zoo.forms import forms
from moe_routing.conformance.zoo.residents import MUTANTS, Mutant, Staged
from moe_routing.implementations import Capabilities, Numerics
from moe_routing.reference.formats import Bools

_FEWEST = 2
"""The fewest failing cases for a hint: most bugs share any one wrong answer."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """A mutant that answers as a backend does.

    It gives the same wrong answers on the backend's failing ``cases``, and is right on the
    constructed cases that the backend ``passed``.
    """

    mutant: str
    family: str
    cases: int
    passed: int

    @property
    def words(self) -> str:
        """The hint in one line, with its evidence."""
        return (
            f"behaves like `{self.mutant}` ({FAMILIES[self.family]}): the same wrong answers on "
            f"all {self.cases} failing cases, right on all {self.passed} passing ones"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Probe:
    """A clause with a case of it, with a memo that its trials of all mutants share."""

    clause: Clause
    case: AnyCase
    memo: CaseMemo = field(default_factory=CaseMemo)

    @cached_property
    def due(self) -> Bools | None:
        """Which experts ``[T, E]`` the reference selects, where the case is one of routing."""
        if not isinstance(self.case, Case):
            return None
        chosen = self.memo.bounds(self.case, Numerics()).reference.expert_ids
        return chosen_mask(chosen, self.case.config.num_experts)

    def failure_of(self, mutant: Staged) -> Failure | None:
        """Return how ``mutant`` fails, or None if it passes or the clause does not apply."""
        if adapter_scope(mutant, self.clause, mutant.capabilities()) is not None:
            return None
        trial = trial_of(mutant, self.case, self.clause.method, memo=self.memo)
        return evaluate(self.clause, trial).failure


@dataclass(frozen=True, kw_only=True, eq=False)
class _Wrong:
    """A case on which a backend is wrong, and how."""

    probe: _Probe
    failure: Failure

    @cached_property
    def chosen(self) -> Bools | None:
        """Which experts ``[T, E]`` the backend chose, as far as its story says."""
        case, view = self.probe.case, self.failure.view
        if not isinstance(case, Case) or view is None or self.failure.token is None:
            return None
        mask = np.zeros((case.inputs.num_tokens, case.config.num_experts), dtype=bool)
        ids = [slot.expert for slot in view.slots if slot.permitted is not None]
        if self.failure.token < len(mask):
            mask[self.failure.token, ids] = True
        return mask


def nearest(results: Sequence[ClauseResult], capabilities: Capabilities) -> Likeness | None:
    """Return the mutant that gives the wrong answers in ``results``, and is right elsewhere.

    The backend itself is not called. None where the evidence is thin: where errors outnumber
    failures, where only the layout is broken, where fewer than two cases fail or none
    passes, or where mutants of several families do. Of one family the first stands for all.
    """
    failing = _failing(results)
    if len(failing) < _FEWEST or all(each[0].failure.stage == "layout" for each in failing):
        return None
    wrong = [each for number in range(2) for some in failing for each in some[number : number + 1]]
    near = [each for each in MUTANTS.values() if _answers_alike(each, wrong)]
    passed = _passed(results, capabilities) if near else []
    near = [each for each in near if _is_right(each, passed)]
    if not passed or len({each.family for each in near}) != 1:
        return None
    first, *_ = near
    return Likeness(mutant=first.name, family=first.family, cases=len(failing), passed=len(passed))


def _failing(results: Sequence[ClauseResult]) -> list[list[_Wrong]]:
    """Return what each clause saw fail, smallest first; nothing where errors outnumber that."""
    failing = [
        [
            _Wrong(probe=_Probe(clause=CLAUSES[each.id], case=case), failure=failure)
            for case, failure in ((each.case, each.failure), each.found or (None, None))
            if case is not None and failure is not None
        ]
        for each in results
        if each.status == "fail" and each.case is not None and each.failure is not None
        if each.failure.steady  # every mutant is deterministic
    ]
    errors = sum(each.status in ("error", "crash", "timeout") for each in results)
    return failing if errors <= len(failing) else []


def _answers_alike(mutant: Mutant, wrong: Sequence[_Wrong]) -> bool:
    """Return whether ``mutant`` gives the same wrong answer in every case, in some form."""
    return all(
        any(_same(each.probe.failure_of(form), each.failure) for form in forms(mutant, each.chosen))
        for each in wrong
    )


def _is_right(mutant: Mutant, passed: Sequence[_Probe]) -> bool:
    """Return whether ``mutant`` passes every case, in some form."""
    return all(
        any(probe.failure_of(form) is None for form in forms(mutant, probe.due)) for probe in passed
    )


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

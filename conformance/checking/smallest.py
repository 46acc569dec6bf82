"""The smallest failure: a broken case repeated, made smaller, and repeated again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import all_defined, kind_of
from moe_routing.conformance.checking.onsets import Verdict, cut_down
from moe_routing.conformance.checking.outcome import Outcome
from moe_routing.conformance.checking.target import Target
from moe_routing.conformance.generators.reducer import BUDGET, reduce_case
from moe_routing.conformance.trial.base import AnyTrial

FEW = 16
"""The calls that may be made to find a smaller case where each costs seconds."""


def smallest_failure(target: Target, case: AnyCase, broken: Outcome) -> tuple[AnyCase, Outcome]:
    """Return the smallest case found that breaks as ``case`` does, and its outcome.

    Cases whose answer the specification defines, for every token, come before all others.
    Where a repeated call passes, the outcome says that the backend is flaky.
    """
    if broken.status == "timeout":
        return case, broken
    again = target.evaluate(case)
    if not again.broken:
        return case, broken.as_flaky()
    if not target.plan.shrinks or again.status == "timeout":
        return case, again
    alike = _Alike(target, again)
    reductions = kind_of(case).reductions
    budget = FEW if again.costly else BUDGET
    case = reduce_case(case, reductions, alike.breaks, preferred=alike.is_defined, budget=budget)
    if again.costly:
        return case, alike.outcome
    defined = alike.is_defined(case)
    sizes = kind_of(case).sizes
    case, onsets = cut_down(case, sizes, lambda smaller: alike.tried(smaller, defined))
    last = target.evaluate(case)
    return case, replace(last, onsets=onsets) if last.broken else alike.outcome.as_flaky()


@dataclass
class _Alike:
    """Finds cases that break like the given one; ``outcome`` is that of the latest found."""

    target: Target
    outcome: Outcome
    _latest: tuple[AnyCase, AnyTrial] | None = None

    def breaks(self, case: AnyCase) -> bool:
        """Whether a case breaks in the same way."""
        outcome = self.target.evaluate_if_due(self._trial(case))
        if outcome is None or outcome.kind != self.outcome.kind:
            return False
        self.outcome = outcome
        return True

    def tried(self, case: AnyCase, defined: bool) -> Verdict:
        """Return what a case does; if ``defined``, only defined cases can match."""
        if defined and not self.is_defined(case):
            return "else"
        if self.breaks(case):
            return "fails"
        outcome = self.target.evaluate_if_due(self._trial(case))
        return "passes" if outcome is not None and not outcome.broken else "else"

    def is_defined(self, case: AnyCase) -> bool:
        """Whether a case is claimed, and the answer to each of its tokens is defined."""
        return self.target.includes(case) and all_defined(case, self._trial(case).facts)

    def _trial(self, case: AnyCase) -> AnyTrial:
        """Return a trial of ``case``; the same one for the latest case, not called yet."""
        if self._latest is None or self._latest[0] is not case:
            self._latest = case, self.target.trial(case)
        return self._latest[1]

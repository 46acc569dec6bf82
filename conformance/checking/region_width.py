"""How much of a known divergence's region passes: a region wider than the bug hides other bugs.

So a few drawn cases of the region are checked after all. If most of them pass, that is
reported, with what the failing ones have in common. It is no verdict: the entry is still true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of, trial_of
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.search import draw_cases
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.known.divergence import Divergence, covered
from moe_routing.conformance.known.regions import read
from moe_routing.implementations import Adapter

SAMPLE = 20
"""The most cases of a region that are checked after all."""

FEWEST = 5
"""The fewest cases that say anything about a region."""


@dataclass(frozen=True, kw_only=True)
class Width:
    """How many of the cases ``checked`` in a region pass; ``common`` says what the others share."""

    checked: int
    passed: int
    common: str = ""

    @property
    def too_wide(self) -> bool:
        """Whether most of the region passes, judging from enough cases."""
        return self.checked >= FEWEST and 2 * self.passed > self.checked

    def finding(self, divergence: Divergence) -> str:
        """Format as one line, with the suggested fix."""
        place = f" ({divergence.place})" if divergence.place else ""
        share = f"{self.passed} of the {self.checked} cases sampled in its region pass"
        fix = self.common or "narrow `when` to what the failing ones have in common"
        return f"{divergence.id} covers too much: {share}; {fix}{place}"


def width(adapter: Adapter, clause: Clause, plan: Plan, divergence: Divergence) -> Width:
    """Check some cases that ``divergence`` alone excuses. Errors: ``BackendMissing``."""
    others = [d for d in plan.touching(adapter.name, clause) if d.id != divergence.id]
    right: list[AnyCase] = []
    wrong: list[AnyCase] = []

    def enough(case: AnyCase) -> bool:
        trial = trial_of(
            adapter, case, clause.method, lambda t: bool(others) and covered(t, others)
        )
        if covered(trial, [divergence]) and not covered(trial, others):
            outcome = evaluate(clause, trial)
            if not outcome.unchecked:
                (wrong if outcome.broken else right).append(case)
        return len(right) + len(wrong) >= SAMPLE

    draw_cases(
        clause,
        clause.narrowed(adapter.capabilities()),
        suite_seed=plan.seed,
        max_examples=plan.max_examples,
        enough=enough,
    )
    return Width(
        checked=len(right) + len(wrong), passed=len(right), common=_common(divergence, right, wrong)
    )


def _common(divergence: Divergence, right: Sequence[AnyCase], wrong: Sequence[AnyCase]) -> str:
    """Return a key with one value in all failing cases, and another in some passing one."""
    if not wrong:
        return "none of them fails"
    for name in (n for n in kind_of(wrong[0]).compared if n not in divergence.when):
        values = {_shown(name, case) for case in wrong}
        if len(values) == 1 and any(_shown(name, case) not in values for case in right):
            return f"the {len(wrong)} that fail share {name} = {values.pop()}"
    return ""


def _shown(name: str, case: AnyCase) -> str:
    value = read(name, case)
    if name in ("groups", "renormalize"):
        return '"absent"' if value is None else '"present"'
    return f'"{value}"' if isinstance(value, str) else str(value)

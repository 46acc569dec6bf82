"""The width of a known divergence: how many of the cases that it excuses need no excuse.

A region that is wider than the bug hides whatever else goes wrong in it. So a few drawn
cases of the region are asked after all, and where most of them pass that is reported, with
what those that break have in common. It is no verdict: the entry is still true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moe_routing.conformance.cases.case import Case, SharedCase
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.search import draw_cases
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.known.regions import read
from moe_routing.conformance.trial.trial import SharedTrial, Trial, trial_of
from moe_routing.implementations import Adapter

SAMPLE = 20
"""The cases of a region that are asked after all, at most."""

FEWEST = 5
"""The fewest cases that say anything about a region."""

_COMPARED = ("score", "weights_from", "groups", "renormalize", "selection_bias", "dtype", "tokens")


@dataclass(frozen=True, kw_only=True)
class Width:
    """Of the cases asked in a region, those that pass; ``common`` words what the others share."""

    asked: int
    passed: int
    common: str = ""

    @property
    def too_wide(self) -> bool:
        """Whether most of the region needs no excuse, as far as can be told."""
        return self.asked >= FEWEST and 2 * self.passed > self.asked

    def finding(self, divergence: Divergence) -> str:
        """Word it in one line, with the mend."""
        place = f" ({divergence.place})" if divergence.place else ""
        share = f"{self.passed} of {self.asked} cases drawn in its region pass"
        mend = self.common or "name in `when` what those that break have in common"
        return f"{divergence.id} is too wide: {share}; {mend}{place}"


def covered(trial: Trial | SharedTrial, divergences: Iterable[Divergence]) -> bool:
    """Tell whether any divergence covers the case; none covers a bad configuration."""
    facts: Any = trial.case
    if isinstance(trial, Trial):
        try:
            replace(trial.case.config)  # a configuration made around its checks is bad
        except ValueError:
            return False
        facts = trial.bounds
    return any(divergence.covers(facts, trial.case) for divergence in divergences)


def width(adapter: Adapter, clause: Clause, plan: Plan, divergence: Divergence) -> Width:
    """Ask some cases that ``divergence`` alone excuses. Errors: ``BackendMissing``."""
    others = [d for d in plan.touching(adapter.name, clause) if d.id != divergence.id]
    right: list[Case | SharedCase] = []
    wrong: list[Case | SharedCase] = []

    def enough(case: Case | SharedCase) -> bool:
        trial = trial_of(
            adapter, case, clause.method, lambda t: bool(others) and covered(t, others)
        )
        if covered(trial, [divergence]) and not covered(trial, others):
            (wrong if evaluate(clause, trial).broken else right).append(case)
        return len(right) + len(wrong) >= SAMPLE

    draw_cases(
        clause,
        clause.narrowed(adapter.capabilities()),
        suite_seed=plan.seed,
        max_examples=plan.max_examples,
        enough=enough,
    )
    return Width(
        asked=len(right) + len(wrong), passed=len(right), common=_common(divergence, right, wrong)
    )


def _common(
    divergence: Divergence, right: Sequence[Case | SharedCase], wrong: Sequence[Case | SharedCase]
) -> str:
    """Name a key whose one value all that break share, and some that pass have not."""
    if not wrong:
        return "none of them breaks"
    names = _COMPARED if isinstance(wrong[0], Case) else ("kind", "gated", "dtype", "tokens")
    for name in (name for name in names if name not in divergence.when):
        values = {_shown(name, case) for case in wrong}
        if len(values) == 1 and any(_shown(name, case) not in values for case in right):
            return f"the {len(wrong)} that break share {name} = {values.pop()}"
    return ""


def _shown(name: str, case: Case | SharedCase) -> str:
    value = read(name, case)
    if name in ("groups", "renormalize"):
        return '"absent"' if value is None else '"present"'
    return f'"{value}"' if isinstance(value, str) else str(value)

"""The target of a check: one clause on one adapter, less what is known to diverge there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.outcome import Outcome, evaluate
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.scope import admits
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.known.divergence import Divergence, covered
from moe_routing.conformance.trial.base import AnyTrial
from moe_routing.implementations import Adapter, Capabilities


@dataclass(frozen=True, eq=False)
class Target:
    """One clause on one adapter, under the known divergences of a plan."""

    adapter: Adapter
    clause: Clause
    plan: Plan

    @cached_property
    def narrowed(self) -> Capabilities:
        """The part of the adapter's claims that the clause is about."""
        return self.clause.narrowed(self.adapter.capabilities())

    @cached_property
    def excluded(self) -> Sequence[Divergence]:
        """The known divergences whose regions are left out."""
        return self.plan.touching(self.adapter.name, self.clause)

    @cached_property
    def listed(self) -> Sequence[Divergence]:
        """The known divergences that are about this very clause."""
        return self.plan.listed(self.adapter.name, self.clause)

    def trial(self, case: AnyCase) -> AnyTrial:
        """Return a trial of ``case``; cases that the clause derives are excused like this one."""
        return trial_of(self.adapter, case, self.clause.method, self.is_known)

    def is_known(self, trial: AnyTrial) -> bool:
        """Whether a known divergence covers the case; none covers an invalid configuration."""
        return bool(self.excluded) and covered(trial, self.excluded)

    def includes(self, case: AnyCase) -> bool:
        """Whether another case, too, belongs to the clause and to the claims."""
        return admits(self.clause, self.narrowed, case)

    def evaluate(self, case: AnyCase) -> Outcome:
        """Check the clause on a case. Errors: ``BackendMissing``."""
        return evaluate(self.clause, self.trial(case))

    def evaluate_if_due(self, trial: AnyTrial) -> Outcome | None:
        """Check it on any trial; None where its case is outside the claims or known to diverge."""
        if not self.includes(trial.case) or self.is_known(trial):
            return None
        return evaluate(self.clause, trial)

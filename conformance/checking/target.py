"""The target of a check: one clause on one adapter, less what is known to diverge there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.edges import BY_SLUG, Edge
from moe_routing.conformance.checking.outcome import Outcome, evaluate
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.scope import admits
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.events import Event
from moe_routing.conformance.known.divergence import Divergence, covered
from moe_routing.conformance.trial.base import AnyTrial
from moe_routing.conformance.trial.lenience import Lenience
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.implementations import Adapter, Capabilities


@dataclass(frozen=True, eq=False)
class Target:
    """One clause on one adapter, under the known divergences of a plan."""

    adapter: Adapter
    clause: Clause
    plan: Plan

    @cached_property
    def capabilities(self) -> Capabilities:
        """The adapter's capabilities, narrowed to one dtype where the plan names it."""
        whole = self.adapter.capabilities()
        if self.plan.dtype is None:
            return whole
        if self.plan.dtype in whole.dtypes:
            return replace(whole, dtypes=(self.plan.dtype,))
        return replace(whole, claims=())

    @cached_property
    def narrowed(self) -> Capabilities:
        """The part of the adapter's claims that the clause is about."""
        return self.clause.narrowed(self.capabilities)

    @cached_property
    def witnesses(self) -> Sequence[Event]:
        """The events that a pass must have witnessed, under the plan."""
        plan = self.plan
        return self.clause.witnesses(bulk=plan.bulk, huge=plan.huge, most=plan.series)

    @cached_property
    def excluded(self) -> Sequence[Divergence]:
        """The known divergences whose regions are left out."""
        return self.plan.touching(self.adapter.name, self.clause)

    @cached_property
    def listed(self) -> Sequence[Divergence]:
        """The known divergences that are about this very clause."""
        return self.plan.listed(self.adapter.name, self.clause)

    @cached_property
    def edges(self) -> Sequence[Edge]:
        """The edges that are left out, or granted."""
        return [BY_SLUG[slug] for slug in self.plan.past]

    @cached_property
    def lenience(self) -> Lenience:
        """What the judge grants beyond the claims, over all edges that are past."""
        granted = [edge.lenience for edge in self.edges]
        return Lenience(
            numerics={name: value for each in granted for name, value in each.numerics.items()},
            dtypes={name: value for each in granted for name, value in each.dtypes.items()},
        )

    def trial(self, case: AnyCase, memo: CaseMemo | None = None) -> AnyTrial:
        """Return a trial of ``case``; cases that the clause derives are excused like this one.

        A ``memo`` is shared with the trials of cases that are mostly alike.
        """
        method = self.clause.method
        return trial_of(
            *(self.adapter, case, method, self.is_known, memo, self.lenience),
            repeats=self.plan.repeats,
        )

    def is_known(self, trial: AnyTrial) -> bool:
        """Whether the case is left out: a known divergence covers it, or an edge that is past."""
        if any(edge.holds(trial.case) for edge in self.edges):
            return True
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

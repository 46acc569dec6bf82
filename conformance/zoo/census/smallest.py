"""The smallest case that still kills a mutant, as the suite would show it."""

from __future__ import annotations

from dataclasses import dataclass

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of, trial_of
from moe_routing.conformance.checking.outcome import evaluate
from moe_routing.conformance.checking.scope import admits
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.generators.reducer import reduce_case
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.zoo.census.matrix import Kill
from moe_routing.conformance.zoo.residents import MUTANTS

MOST_TOKENS, MOST_EXPERTS = 4, 8
"""The sizes of a case that a person can read at a glance."""


@dataclass(frozen=True, kw_only=True)
class Smallest:
    """The sizes of a mutant's smallest failing case, with the clause that it fails."""

    mutant: str
    clause: str
    tokens: int
    experts: int

    @property
    def readable(self) -> bool:
        """Whether a person can read it at a glance."""
        return self.tokens <= MOST_TOKENS and self.experts <= MOST_EXPERTS


def smallest(kill: Kill) -> Smallest:
    """Make the case of ``kill`` as small as possible while the same clause fails alike."""
    case = _reduced(kill)
    return Smallest(
        mutant=kill.mutant,
        clause=kill.clause,
        tokens=len(case.inputs.hidden),
        experts=case.sizes.get("E", 1),
    )


def _reduced(kill: Kill) -> AnyCase:
    clause, mutant = CLAUSES[kill.clause], MUTANTS[kill.mutant].adapter()
    narrowed = clause.narrowed(mutant.capabilities())

    def outcome(case: AnyCase) -> tuple[str, str | None, bool]:
        return evaluate(clause, trial_of(mutant, case, clause.method, memo=CaseMemo())).kind

    wanted = outcome(kill.case)

    def fails_alike(case: AnyCase) -> bool:
        return admits(clause, narrowed, case) and outcome(case) == wanted

    return reduce_case(kill.case, kind_of(kill.case).reductions, fails_alike)

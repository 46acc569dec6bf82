"""The smallest case that still kills a mutant, as the suite would show it."""

from __future__ import annotations

from dataclasses import dataclass

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.smallest import smallest_failure
from moe_routing.conformance.checking.target import Target
from moe_routing.conformance.clauses import CLAUSES
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
        tokens=case.num_tokens,
        experts=case.sizes.get("E", 1),
    )


def _reduced(kill: Kill) -> AnyCase:
    clause = CLAUSES[kill.clause]
    target = Target(MUTANTS[kill.mutant].adapter(), clause, Plan(clauses=[clause]))
    return smallest_failure(target, kill.case, target.evaluate(kill.case))[0]

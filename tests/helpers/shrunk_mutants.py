"""Failures of mutants under given claims, each made smaller as a run does it, and every call noted.

    python tests/helpers/shrunk_mutants.py [COUNT]

makes COUNT of them small, 500 by default, under claims of inputs in rows alone, then some under
each narrow claim, and says how many calls and cases were outside the claims: none should be.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from narrow_claims import NARROW

from moe_routing.conformance import Plan
from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.clauses import CLAUSES, Clause
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.conformance.zoo.residents import Mutant
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.implementations import Capabilities

ROWS_ONLY = NARROW["rows"]


@dataclass
class Noting:
    """A mutant as an adapter, which notes the names of arrays that do not lie in rows."""

    inner: StagedRouter
    strided: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.inner.name

    def capabilities(self) -> Capabilities:
        return self.inner.capabilities()

    def route(self, config: Any, inputs: Any) -> Any:
        return self._noted("route", config, inputs)

    def dispatch(self, config: Any, inputs: Any) -> Any:
        return self._noted("dispatch", config, inputs)

    def shared_experts(self, config: Any, inputs: Any) -> Any:
        return self._noted("shared_experts", config, inputs)

    def _noted(self, method: str, config: Any, inputs: Any) -> Any:
        arrays = inputs.arrays()
        self.strided += [name for name, array in arrays.items() if not array.flags.c_contiguous]
        return getattr(self.inner, method)(config, inputs)


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """One failure: the smallest case of a mutant that breaks a clause, and what it was given."""

    mutant: str
    clause: str
    case: AnyCase
    strided: list[str]
    inside: bool


def shrunk_mutants(claims: Capabilities, *, start: int = 0, step: int = 1) -> Iterator[Shrunk]:
    """Yield failures of every ``step``-th pair of a mutant and a clause.

    Pairs come first whose clause names the family of the mutant.
    """
    clauses = [clause for clause in CLAUSES.values() if not clause.beyond_claims]
    pairs = [(mutant, clause) for clause in clauses for mutant in MUTANTS.values()]
    pairs.sort(key=lambda pair: pair[0].family not in pair[1].bugs)
    for mutant, clause in pairs[start::step]:
        if (found := _shrunk(mutant, clause, claims)) is not None:
            yield found


def _shrunk(mutant: Mutant, clause: Clause, claims: Capabilities) -> Shrunk | None:
    claimed = replace(claims, logits=mutant.claims.logits, numerics=mutant.claims.numerics)
    adapter = Noting(replace(mutant, claims=claimed).adapter())
    found = check_clause(adapter, clause, Plan(clauses=[clause], max_examples=25))
    if found.case is None:
        return None
    return Shrunk(
        mutant=mutant.name,
        clause=clause.id,
        case=found.case,
        strided=adapter.strided,
        inside=kind_of(found.case).claimed(found.case, claimed),
    )


def _print(name: str, claims: Capabilities, count: int, step: int) -> None:
    found = list(islice(shrunk_mutants(claims, step=step), count))
    outside = sum(not each.inside for each in found)
    strided = sum(len(each.strided) for each in found)
    calls = f", {strided} strided arrays given" if "strided" not in claims.layouts else ""
    print(f"{name}: {len(found)} failures made smaller, {outside} cases outside{calls}", flush=True)


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    _print("layouts=('contiguous',)", ROWS_ONLY, wanted, 1)
    for name, claims in NARROW.items():
        _print(name, claims, max(1, wanted // 25), 16)

"""The least census: each mutant until it is caught soon, each clause until it has caught one.

It shows what the whole census shows of survivors and of idle clauses, at a part of the cost,
where its tasks are run one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.zoo.census.matrix import Found, Kill, Task, names_family
from moe_routing.conformance.zoo.census.plan import SOON, CensusPlan


def least_tasks(plan: CensusPlan, found: Sequence[Found]) -> Iterator[Task]:
    """Yield the tasks that are still needed, given what was ``found`` by those before.

    A clause is run on the mutants that are left; where it caught none of them, on the others
    one at a time, until it catches one.
    """
    for seed in plan.seeds:
        for clause in sorted(plan.clauses, key=_in_many_sizes):
            named = [name for name in plan.mutants if names_family(clause, name)]
            settled = {each.mutant for each in _kills(found, seed) if _settles(each, plan)}
            due = tuple(name for name in named if name not in settled)
            yield plan.task(clause, seed, due, plan.variants)
            for name in named:
                if any(each.clause == clause for each in _kills(found, seed)):
                    break
                if name in settled:
                    yield plan.task(clause, seed, (name,))


def _settles(kill: Kill, plan: CensusPlan) -> bool:
    """Return whether nothing more need be known of a mutant."""
    return 0 < kill.drawn <= SOON or kill.mutant in plan.large


def _in_many_sizes(clause: str) -> bool:
    """Return whether a clause makes calls of many sizes: such a clause costs most, and is last."""
    return any(EVENTS[slug].series for slug in CLAUSES[clause].events)


def _kills(found: Sequence[Found], seed: int) -> Iterator[Kill]:
    """Yield the kills of a seed that count."""
    return (each for each in found if isinstance(each, Kill) and each.named and each.seed == seed)

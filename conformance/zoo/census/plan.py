"""The plan of a census: which clauses, seeds, draws, mutants and variants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.zoo.census.matrix import Task

SOON = 100
"""The draws within which a mutant should be caught: the ``ci`` profile of one clause."""


@dataclass(frozen=True, kw_only=True)
class CensusPlan:
    """What to check: clauses, seeds, draws per clause, and mutants and variants by name.

    ``least`` makes the least runs that show each mutant caught and no clause idle
    (``least_tasks``); a mutant of ``large`` is wrong at sizes that are seldom drawn, and one
    constructed case is enough there, and also for the share ``late`` of the others, if no more of
    them are left. The failing case of every mutant is made smaller, or of one in ``reduced_of``.
    """

    clauses: tuple[str, ...]
    seeds: tuple[int, ...]
    max_examples: int
    mutants: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    least: bool = False
    large: frozenset[str] = frozenset()
    late: float = 0.0
    reduced_of: int = 1

    def tasks(self) -> Iterator[Task]:
        """Yield one task per clause and seed, first those that take longest.

        Of several processes, none is then left with a long one at the end. Constructed cases follow
        from no seed: variants run them on the first one alone.
        """
        for clause in sorted(self.clauses, key=self._cost, reverse=True):
            for seed in self.seeds:
                task = self.task(clause, seed, self.mutants, self.variants)
                yield replace(task, constructs=seed == self.seeds[0])

    def _cost(self, clause: str) -> tuple[bool, int]:
        return in_many_sizes(clause), CLAUSES[clause].draws(self.max_examples)

    def task(
        self, clause: str, seed: int, mutants: tuple[str, ...], variants: tuple[str, ...] = ()
    ) -> Task:
        """Return the task of a clause and seed, on some residents."""
        return Task(
            clause=clause,
            seed=seed,
            max_examples=self.max_examples,
            mutants=mutants,
            variants=variants,
        )


def in_many_sizes(clause: str) -> bool:
    """Return whether a clause makes calls of many sizes: such a clause costs most."""
    return any(EVENTS[slug].series for slug in CLAUSES[clause].events)

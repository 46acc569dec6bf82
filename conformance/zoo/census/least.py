"""The least census: each mutant until it is caught soon, each clause until it has caught one.

It shows what the whole census shows of survivors and of idle clauses, at a part of the cost,
where its tasks are run one after the other. Most mutants are caught by the first few cases that
one of their clauses draws, and no case at all shows them to the others: so all clauses draw a few
cases before any of them draws many, or runs what it constructs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from moe_routing.conformance.zoo.census.encounter import Part
from moe_routing.conformance.zoo.census.matrix import Found, Kill, Task, names_family
from moe_routing.conformance.zoo.census.plan import SOON, CensusPlan, in_many_sizes

ROUNDS = (5, 25)
"""The cases that every clause draws before any draws more."""


def least_tasks(plan: CensusPlan, found: Sequence[Found]) -> Iterator[Task]:
    """Yield the tasks that are still needed, given what was ``found`` by those before.

    A clause is run on the mutants that are left; where it caught none of them, on the others
    one at a time, until it catches one.
    """
    for seed in plan.seeds:
        least = _Least(plan, found, seed)
        for most in ROUNDS:
            yield from least.round("drawn", most, least.quick)
        if len(least.left(least.quick)) <= plan.late * len(least.quick):
            least.large += least.left(least.quick)
        yield from least.round("constructed", plan.max_examples, least.large)
        yield from least.round("all", plan.max_examples, plan.mutants, plan.variants)
        for clause in least.clauses:
            yield from least.until_busy(clause)


@dataclass
class _Least:
    """The least census of a seed: what was found so far, and what is left."""

    plan: CensusPlan
    found: Sequence[Found]
    seed: int

    def __post_init__(self) -> None:
        plan = self.plan
        self.clauses = sorted(plan.clauses, key=in_many_sizes)
        self.large = [name for name in plan.mutants if name in plan.large]
        self.quick = [name for name in plan.mutants if name not in plan.large]

    def round(
        self, part: Part, most: int, names: Iterable[str], variants: tuple[str, ...] = ()
    ) -> Iterator[Task]:
        """Yield a task for each clause that names the family of a mutant that is left."""
        for clause in self.clauses:
            due = tuple(name for name in self.left(names) if names_family(clause, name))
            if due or variants:
                task = self.plan.task(clause, self.seed, due, variants)
                yield replace(task, part=part, max_examples=min(most, task.max_examples))

    def until_busy(self, clause: str) -> Iterator[Task]:
        """Yield tasks of a mutant each, until a clause has caught one; those that cost least first.

        A mutant that is left has been run already, whole.
        """
        named = [name for name in self.plan.mutants if names_family(clause, name)]
        whole = [name for name in named if name not in self.left(named)]
        parts: tuple[tuple[Part, int], ...] = (
            ("drawn", ROUNDS[0]),
            ("constructed", self.plan.max_examples),
            ("drawn", self.plan.max_examples),
        )
        for part, most in parts:
            for name in whole:
                if any(kill.clause == clause for kill in self.kills()):
                    return
                task = self.plan.task(clause, self.seed, (name,))
                yield replace(task, part=part, max_examples=min(most, task.max_examples))

    def left(self, names: Iterable[str]) -> list[str]:
        """Return the mutants of which more need be known."""
        settled = {kill.mutant for kill in self.kills() if self._settles(kill)}
        return [name for name in names if name not in settled]

    def kills(self) -> list[Kill]:
        """Return the kills of the seed that count."""
        kills = (each for each in self.found if isinstance(each, Kill) and each.named)
        return [each for each in kills if each.seed == self.seed]

    def _settles(self, kill: Kill) -> bool:
        return 0 < kill.drawn <= SOON or kill.mutant in self.large

"""The census: the results of one run over the zoo, and what follows from them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
from typing import Any

from moe_routing.conformance.zoo.census.least import least_tasks
from moe_routing.conformance.zoo.census.matrix import Alarm, Count, Found, Kill, Task
from moe_routing.conformance.zoo.census.plan import SOON, CensusPlan
from moe_routing.conformance.zoo.census.smallest import Smallest, smallest


@dataclass(frozen=True, kw_only=True, eq=False)
class Census:
    """The results of a plan. ``cases`` counts cases, ``answers`` the answers that were judged."""

    plan: CensusPlan
    kills: tuple[Kill, ...]
    alarms: tuple[Alarm, ...]
    smallest: dict[str, Smallest]
    cases: int
    answers: int
    seconds: float

    @property
    def survivors(self) -> list[tuple[str, int]]:
        """The mutants, with the seed, that no clause naming their family caught."""
        caught = {(kill.mutant, kill.seed) for kill in self.kills if kill.named}
        return [
            (name, seed)
            for name in self.plan.mutants
            for seed in self.plan.seeds
            if (name, seed) not in caught
        ]

    @property
    def idle(self) -> list[str]:
        """The clauses that caught no mutant of a family that they name."""
        busy = {kill.clause for kill in self.kills if kill.named}
        return [clause for clause in self.plan.clauses if clause not in busy]

    def killers(self, mutant: str) -> dict[str, list[Kill]]:
        """Return the kills of ``mutant`` by the clauses that name its family, soonest first."""
        by_clause: dict[str, list[Kill]] = defaultdict(list)
        for kill in self.kills:
            if kill.mutant == mutant and kill.named:
                by_clause[kill.clause].append(kill)
        return dict(sorted(by_clause.items(), key=lambda item: _soonest(item[1])))

    def draws(self, mutant: str, seed: int) -> int | None:
        """Return the draws to the first kill in the quickest clause that names the family."""
        drawn = [
            kill.drawn
            for kill in self.kills
            if kill.mutant == mutant and kill.seed == seed and kill.named and kill.drawn
        ]
        return min(drawn, default=None)

    def median_draws(self, mutant: str) -> float | None:
        """Return the median over the seeds; a seed without a drawn kill counts as infinite."""
        drawn = [self.draws(mutant, seed) or float("inf") for seed in self.plan.seeds]
        middle = median(drawn)
        return None if middle == float("inf") else middle

    def soon(self, seed: int) -> float:
        """Return the share of mutants caught within ``SOON`` drawn cases."""
        drawn = [self.draws(mutant, seed) for mutant in self.plan.mutants]
        return sum(n is not None and n <= SOON for n in drawn) / max(1, len(drawn))

    @property
    def ok(self) -> bool:
        """Whether every mutant was caught and every variant passed."""
        return not self.survivors and not self.alarms


def _soonest(kills: Sequence[Kill]) -> tuple[int, int]:
    return (-len(kills), min(kill.drawn or SOON * 100 for kill in kills))


def take(
    plan: CensusPlan,
    *,
    jobs: int = 1,
    on_task: Callable[[Task, list[Found]], None] = lambda *_: None,
) -> Census:
    """Run ``plan`` in ``jobs`` processes; ``on_task`` is called with every task as it ends."""
    began = time.perf_counter()
    found: list[Found] = []
    with _Mapper(jobs) as mapped:
        tasks = least_tasks(plan, found) if plan.least else plan.tasks()
        for task, part in mapped(_ran, tasks):
            on_task(task, part)
            found += part
        kills = tuple(each for each in found if isinstance(each, Kill))
        reduced = _representatives(kills)[:: plan.reduced_of]
        small = {each.mutant: each for each in mapped(smallest, reduced)}
    counts = [each for each in found if isinstance(each, Count)]
    return Census(
        plan=plan,
        kills=kills,
        alarms=tuple(each for each in found if isinstance(each, Alarm)),
        smallest=small,
        cases=sum(each.cases for each in counts),
        answers=sum(each.answers for each in counts),
        seconds=time.perf_counter() - began,
    )


def _ran(task: Task) -> tuple[Task, list[Found]]:
    return task, task.run()


def _representatives(kills: Iterable[Kill]) -> list[Kill]:
    """Return one kill per mutant: the soonest drawn one of a clause that names its family."""
    best: dict[str, Kill] = {}
    for kill in kills:
        if kill.named:
            other = best.get(kill.mutant)
            if other is None or _lateness(kill) < _lateness(other):
                best[kill.mutant] = kill
    return list(best.values())


def _lateness(kill: Kill) -> float:
    return kill.drawn or float("inf")


class _Mapper:
    """A ``map`` in this process or, in order, over several others."""

    def __init__(self, jobs: int) -> None:
        self.pool = None if jobs == 1 else ProcessPoolExecutor(jobs, get_context("spawn"))

    def __enter__(self) -> Callable[..., Iterable[Any]]:
        return map if self.pool is None else self.pool.map

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

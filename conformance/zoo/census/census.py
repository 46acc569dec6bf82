"""The census: the results of one run over the zoo, and what follows from them."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from moe_routing.conformance.zoo.census.least import least_tasks
from moe_routing.conformance.zoo.census.mapper import Mapper, ProcessLost
from moe_routing.conformance.zoo.census.matrix import Alarm, Count, Found, Kill, Task
from moe_routing.conformance.zoo.census.plan import SOON, CensusPlan
from moe_routing.conformance.zoo.census.smallest import Smallest, smallest

INTERRUPTED = "interrupted"
LOST = "a process of the run ended"


@dataclass(frozen=True, kw_only=True, eq=False)
class Census:
    """The results of a plan. ``cases`` counts cases, ``answers`` the answers that were judged.

    ``ended`` says in words why the run ended early, if it did; ``not_run`` are the tasks of the
    plan that had not ended by then.
    """

    plan: CensusPlan
    kills: tuple[Kill, ...]
    alarms: tuple[Alarm, ...]
    smallest: dict[str, Smallest]
    cases: int
    answers: int
    seconds: float
    ended: str = ""
    not_run: tuple[Task, ...] = ()

    @property
    def seeds(self) -> list[int]:
        """The seeds of which something ran."""
        runs = Counter(task.seed for task in self.not_run)
        return [seed for seed in self.plan.seeds if runs[seed] < len(self.plan.clauses)]

    @property
    def progress(self) -> str:
        """How far a run that ended early came, in words."""
        of = len(self.plan.clauses) * len(self.plan.seeds)
        if self.not_run:
            return f"{of - len(self.not_run)} of {of} pairs of clause and seed"
        return f"all {of} pairs of clause and seed"

    @property
    def survivors(self) -> list[tuple[str, int]]:
        """The mutants, with the seed, that no clause naming their family caught in a whole run."""
        return [] if self.ended else self.uncaught

    @property
    def uncaught(self) -> list[tuple[str, int]]:
        """The mutants, with the seed, that no clause naming their family has caught so far."""
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

    def caught(self, seed: int) -> str:
        """Return how many mutants one seed caught, in words."""
        mutants = len(self.plan.mutants)
        caught = mutants - sum(each == seed for _, each in self.uncaught)
        so_far = " so far" if self.ended else ""
        soon = f"{self.soon(seed):.0%} within {SOON} drawn cases"
        return f"seed {seed}: {caught} of {mutants} mutants caught{so_far}, {soon}"

    @property
    def passed(self) -> str:
        """How many variants passed, in words."""
        variants, wrong = len(self.plan.variants), len({each.variant for each in self.alarms})
        if self.ended:
            return f"{wrong} of {variants} honest variants refused so far"
        return f"{variants - wrong} of {variants} honest variants passed"

    @property
    def ok(self) -> bool:
        """Whether a whole run caught every mutant and passed every variant."""
        return not (self.ended or self.survivors or self.alarms)


def _soonest(kills: Sequence[Kill]) -> tuple[int, int]:
    return (-len(kills), min(kill.drawn or SOON * 100 for kill in kills))


def take(
    plan: CensusPlan,
    *,
    jobs: int = 1,
    on_task: Callable[[Task, list[Found]], None] = lambda *_: None,
) -> Census:
    """Run ``plan`` in ``jobs`` processes; ``on_task`` is called with every task as it ends.

    An interrupt, and the loss of a process, end the run early, with a census that says so.
    """
    began = time.perf_counter()
    notes = _Notes(on_task)
    ended = ""
    try:
        with Mapper(jobs) as mapper:
            tasks = least_tasks(plan, notes.found) if plan.least else plan.tasks()
            mapper.run(_ran, tasks, notes.task)
            notes.sort(plan)
            reduced = _representatives(notes.kills)[:: plan.reduced_of]
            mapper.run(smallest, reduced, notes.small)
    except (KeyboardInterrupt, ProcessLost) as early:
        ended = INTERRUPTED if isinstance(early, KeyboardInterrupt) else LOST
    counts = [each for each in notes.found if isinstance(each, Count)]
    return Census(
        plan=plan,
        kills=tuple(notes.kills),
        alarms=tuple(each for each in notes.found if isinstance(each, Alarm)),
        smallest=notes.smallest,
        cases=sum(each.cases for each in counts),
        answers=sum(each.answers for each in counts),
        seconds=time.perf_counter() - began,
        ended=ended,
        not_run=() if plan.least else tuple(t for t in plan.tasks() if t not in notes.ran),
    )


@dataclass(eq=False)
class _Notes:
    """What a run has found so far: a task, and a smallest case, may be noted twice."""

    on_task: Callable[[Task, list[Found]], None]
    ran: set[Task] = field(default_factory=set)
    found: list[Found] = field(default_factory=list)
    smallest: dict[str, Smallest] = field(default_factory=dict)

    def task(self, ran: tuple[Task, list[Found]]) -> None:
        task, found = ran
        if task not in self.ran:
            self.ran.add(task)
            self.found += found
            self.on_task(task, found)

    def small(self, found: Smallest) -> None:
        self.smallest[found.mutant] = found

    def sort(self, plan: CensusPlan) -> None:
        """Bring what was found into the order of seeds and clauses, but that of a least run."""
        if not plan.least:
            place = {clause: at for at, clause in enumerate(plan.clauses)}
            self.found.sort(key=lambda each: (each.seed, place[each.clause]))

    @property
    def kills(self) -> list[Kill]:
        return [each for each in self.found if isinstance(each, Kill)]


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

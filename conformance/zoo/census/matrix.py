"""The kill matrix: which clause caught which mutant, and how soon; which variants passed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.zoo.census.encounter import Encounter, Part, Seen
from moe_routing.conformance.zoo.residents import HONEST, MUTANTS


def names_family(clause: str, mutant: str) -> bool:
    """Return whether a clause names the family of a mutant."""
    return MUTANTS[mutant].family in CLAUSES[clause].bugs


@dataclass(frozen=True, kw_only=True, eq=False)
class Kill:
    """One mutant caught by one clause: a cell of the matrix.

    ``event`` is the first constructed case that caught it, or empty; ``drawn`` the number
    of drawn cases up to the first that did, or 0 where none did; ``case`` the drawn case,
    else the constructed one.
    """

    mutant: str
    clause: str
    seed: int
    event: str
    drawn: int
    case: AnyCase

    @property
    def named(self) -> bool:
        """Whether the clause names the mutant's family: only then does the kill count."""
        return names_family(self.clause, self.mutant)


@dataclass(frozen=True, kw_only=True, eq=False)
class Alarm:
    """An honest variant that failed a clause: a false alarm of the suite."""

    variant: str
    clause: str
    seed: int
    message: str
    case: AnyCase


@dataclass(frozen=True, kw_only=True)
class Count:
    """The number of cases of one clause and seed, and of the answers that were judged."""

    clause: str
    seed: int
    cases: int
    answers: int


Found = Kill | Alarm | Count


@dataclass(frozen=True, kw_only=True)
class Task:
    """One clause of the matrix, with the residents to check it on, on all cases or a ``part``.

    Without ``constructs`` the variants get drawn cases alone.
    """

    clause: str
    seed: int
    max_examples: int
    mutants: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    part: Part = "all"
    constructs: bool = True

    def run(self) -> list[Found]:
        """Check the clause on the mutants until each is caught, and on the variants."""
        kills, alarms = _Kills(self), _Alarms(self)
        found: list[Found] = []
        for names, zoo, notes in (
            (self.mutants, MUTANTS, kills),
            (self.variants, HONEST, alarms),
        ):
            meeting = Encounter(
                CLAUSES[self.clause],
                self.seed,
                self.max_examples,
                notes.note,
                together=zoo is HONEST,
                part=self.part if self.constructs or zoo is MUTANTS else "drawn",
            )
            meeting.run({name: zoo[name].adapter() for name in names})
            found += [*notes.found(), self._count(meeting)]
        return found

    def _count(self, meeting: Encounter) -> Count:
        return Count(
            clause=self.clause, seed=self.seed, cases=meeting.cases, answers=meeting.answers
        )


class _Kills:
    """Collects the first constructed and the first drawn kill of each mutant; more add nothing."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.first: dict[str, dict[bool, Seen]] = {}

    def note(self, seen: Seen) -> bool:
        """Note a failure in a case, and return whether it is one; an error is no kill."""
        if seen.outcome.failure is None:
            return False
        self.first.setdefault(seen.resident, {}).setdefault(bool(seen.drawn), seen)
        return True

    def found(self) -> Iterator[Kill]:
        for name, seen in self.first.items():
            constructed, drawn = seen.get(False), seen.get(True)
            first = drawn or constructed
            assert first is not None, "a mutant without a kill has no entry"
            yield Kill(
                mutant=name,
                clause=self.task.clause,
                seed=self.task.seed,
                event=constructed.event if constructed else "",
                drawn=drawn.drawn if drawn else 0,
                case=first.case,
            )


class _Alarms:
    """Collects the first case that each variant failed."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.first: dict[str, Seen] = {}

    def note(self, seen: Seen) -> bool:
        """Note any failure or error; the first one is enough."""
        self.first.setdefault(seen.resident, seen)
        return True

    def found(self) -> Iterator[Alarm]:
        for name, seen in self.first.items():
            outcome = seen.outcome
            yield Alarm(
                variant=name,
                clause=self.task.clause,
                seed=self.task.seed,
                message=outcome.failure.summary if outcome.failure else str(outcome.error),
                case=seen.case,
            )

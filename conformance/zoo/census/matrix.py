"""The kill matrix: which clause caught which mutant, and how soon; which variants passed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.zoo.census.encounter import Encounter, Seen
from moe_routing.conformance.zoo.residents import HONEST, MUTANTS


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
        return MUTANTS[self.mutant].family in CLAUSES[self.clause].bugs


@dataclass(frozen=True, kw_only=True, eq=False)
class Alarm:
    """An honest variant that a clause did not pass: a false alarm of ours."""

    variant: str
    clause: str
    seed: int
    message: str
    case: AnyCase


@dataclass(frozen=True, kw_only=True)
class Count:
    """The cases of one clause and seed, and how often a resident was asked."""

    clause: str
    cases: int
    asked: int


Found = Kill | Alarm | Count


@dataclass(frozen=True, kw_only=True)
class Task:
    """One clause of the matrix, with what to put it to."""

    clause: str
    seed: int
    max_examples: int
    mutants: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()

    def run(self) -> list[Found]:
        """Put the clause to the mutants until each is caught, and to the variants to the end."""
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
                notes.tell,
                together=zoo is HONEST,
            )
            meeting.run({name: zoo[name].adapter() for name in names})
            found += [*notes.found(), self._count(meeting)]
        return found

    def _count(self, meeting: Encounter) -> Count:
        return Count(clause=self.clause, cases=meeting.cases, asked=meeting.asked)


class _Kills:
    """Keeps the first constructed and the first drawn kill of each mutant."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.first: dict[str, dict[bool, Seen]] = {}

    def tell(self, seen: Seen) -> bool:
        """Note a failure; an error is no kill, since it names no cause."""
        if seen.outcome.failure is None:
            return False
        self.first.setdefault(seen.resident, {}).setdefault(bool(seen.drawn), seen)
        return bool(seen.drawn)

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
    """Keeps the first case of each variant that was not passed."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.first: dict[str, Seen] = {}

    def tell(self, seen: Seen) -> bool:
        """Note anything that is wrong."""
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

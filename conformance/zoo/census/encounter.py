"""Encounters: one clause put to many residents of the zoo, every case to all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.kinds import kind_of, trial_of
from moe_routing.conformance.checking.outcome import Outcome, evaluate
from moe_routing.conformance.checking.scope import adapter_scope
from moe_routing.conformance.checking.search import draw_cases
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.zoo.census.parade import Parade
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.implementations import Capabilities, Numerics

Residents = Mapping[str, StagedRouter]


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What one resident showed in one case: ``drawn`` counts from 1, or ``event`` made the case."""

    resident: str
    case: AnyCase
    outcome: Outcome
    drawn: int = 0
    event: str = ""


@dataclass(eq=False)
class Encounter:
    """One clause, and how many cases of it to draw.

    ``tell`` is given every broken outcome, and says whether that resident need not be asked
    again. Residents of equal claims, as far as the clause is about them, see the same cases
    and share the work of judging. ``together`` saves more where residents are right: what
    they answer is judged in one go, and cases drawn from the whole specification are put to
    those, too, who claim less of it, so that fewer are left to be drawn for these alone.
    """

    clause: Clause
    seed: int
    max_examples: int
    tell: Callable[[Seen], bool]
    together: bool
    cases: int = 0
    asked: int = 0
    _gone: set[str] = field(default_factory=set)
    _drawn: Counter[str] = field(default_factory=Counter)

    def run(self, residents: Residents) -> None:
        """Put constructed cases, then drawn ones, to those whom the clause is about."""
        herds = self._herds(residents)
        for claimed, herd in herds:
            for slug in self.clause.events:
                case = EVENTS[slug].constructed(claimed)
                if case is not None:
                    self._put(case, herd, event=slug)
        self._gone.clear()
        for claimed, herd in herds:
            others = [guests for _, guests in herds if guests is not herd]
            self._draw(claimed, herd, others if self._welcomes(herd) else [])

    def _welcomes(self, herd: Residents) -> bool:
        """Tell whether the cases drawn for ``herd`` are those of the whole specification."""
        whole = _without_details(next(iter(herd.values())).capabilities()) == Capabilities()
        return self.together and whole and self.clause.strategy is None

    def _draw(self, claimed: Capabilities, herd: Residents, others: Sequence[Residents]) -> None:
        """Draw cases until each of ``herd`` has had its share, or is not asked any more."""
        guests = {name: resident for each in others for name, resident in each.items()}

        def enough(case: AnyCase) -> bool:
            claiming = {
                name: guest
                for name, guest in guests.items()
                if self.clause.narrowed(guest.capabilities()).admits(case.config, case.inputs)
            }
            self._put(case, {**herd, **claiming})
            return not any(map(self._waits, herd))

        if any(map(self._waits, herd)):
            draw_cases(
                self.clause,
                claimed,
                suite_seed=self.seed,
                max_examples=self.max_examples,
                enough=enough,
            )

    def _waits(self, name: str) -> bool:
        """Tell whether a resident is still to be asked."""
        return name not in self._gone and self._drawn[name] < self.max_examples

    def _put(self, case: AnyCase, herd: Residents, *, event: str = "") -> None:
        """Put a case to those of ``herd`` that are still asked."""
        self.cases += 1
        asked = {name: resident for name, resident in herd.items() if self._waits(name)}
        for name, outcome in self._outcomes(asked, case):
            self.asked += 1
            self._drawn[name] += not event
            drawn = 0 if event else self._drawn[name]
            seen = Seen(resident=name, case=case, outcome=outcome, drawn=drawn, event=event)
            if outcome.broken and self.tell(seen):
                self._gone.add(name)

    def _outcomes(self, asked: Residents, case: AnyCase) -> Iterator[tuple[str, Outcome]]:
        """Put the clause's question about each, all at one memo."""
        method, memo = self.clause.method, CaseMemo()
        parade = None
        if self.together and kind_of(case).routes:
            parade = Parade(asked, cast(Case, case), method, memo)
        for name, resident in asked.items():
            if parade is None:
                trial = trial_of(resident, case, method, memo=memo)
                yield name, evaluate(self.clause, trial)
            else:
                yield name, parade.outcome(self.clause, name)

    def _herds(self, residents: Residents) -> list[tuple[Capabilities, dict[str, StagedRouter]]]:
        """Group those whom the clause is about by what it is about in their claims."""
        herds: dict[str, tuple[Capabilities, dict[str, StagedRouter]]] = {}
        for name, resident in residents.items():
            capabilities = resident.capabilities()
            if adapter_scope(resident, self.clause, capabilities) is None:
                claimed = self.clause.narrowed(_without_details(capabilities))
                herds.setdefault(repr(claimed), (claimed, {}))[1][name] = resident
        return list(herds.values())


def _without_details(capabilities: Capabilities) -> Capabilities:
    """Return what cases are drawn from: all but the logits returned and the numerics."""
    return replace(capabilities, logits="none", numerics=Numerics())

"""Encounters: one clause put to many residents of the zoo, every case to all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from moe_routing.conformance.applies import why_unsupported
from moe_routing.conformance.bench import Bench
from moe_routing.conformance.case import Case, SharedCase
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.outcome import Outcome, evaluate
from moe_routing.conformance.search import draw_cases
from moe_routing.conformance.trial import SharedTrial, Trial, trial_of
from moe_routing.conformance.zoo.parade import Parade
from moe_routing.conformance.zoo.router import StagedRouter
from moe_routing.implementations import Numerics

Residents = Mapping[str, StagedRouter]


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What one resident showed in one case: ``drawn`` counts from 1, or ``event`` made the case."""

    resident: str
    case: Case | SharedCase
    outcome: Outcome
    drawn: int = 0
    event: str = ""


@dataclass(eq=False)
class Encounter:
    """One clause, and how many cases of it to draw.

    ``tell`` is given every broken outcome, and says whether that resident need not be asked
    again. Residents with equal claims see the same cases, and share the work of judging;
    ``together``, their answers are judged in one go, which pays where they are right.
    """

    clause: Clause
    seed: int
    max_examples: int
    tell: Callable[[Seen], bool]
    together: bool
    cases: int = 0
    asked: int = 0
    _gone: set[str] = field(default_factory=set)

    def run(self, residents: Residents) -> None:
        """Put constructed cases, then drawn ones, to those whom the clause is about."""
        for herd in self._herds(residents):
            capabilities = next(iter(herd.values())).capabilities()
            narrowed = replace(self.clause.narrowed(capabilities), numerics=Numerics())
            for slug in self.clause.events:
                case = EVENTS[slug].constructed(narrowed)
                if case is not None:
                    self._put(case, herd, event=slug)
            self._gone.difference_update(herd)
            count = iter(range(1, self.max_examples + 1))
            draw_cases(
                self.clause,
                narrowed,
                suite_seed=self.seed,
                max_examples=self.max_examples,
                enough=lambda case, herd=herd, count=count: self._put(
                    case, herd, drawn=next(count)
                ),
            )

    def _put(
        self, case: Case | SharedCase, herd: Residents, *, drawn: int = 0, event: str = ""
    ) -> bool:
        """Put a case to those of the herd that are still asked, and tell whether none is left."""
        self.cases += 1
        asked = {name: resident for name, resident in herd.items() if name not in self._gone}
        for name, trial in self._trials(asked, case).items():
            self.asked += 1
            outcome = evaluate(self.clause, trial)
            seen = Seen(resident=name, case=case, outcome=outcome, drawn=drawn, event=event)
            if outcome.broken and self.tell(seen):
                self._gone.add(name)
        return self._gone.issuperset(herd)

    def _trials(
        self, asked: Residents, case: Case | SharedCase
    ) -> Mapping[str, Trial | SharedTrial]:
        """Return a trial a resident, all at one bench."""
        method, bench = self.clause.method, Bench()
        if self.together and isinstance(case, Case):
            return Parade(asked, case, method, bench).trials
        return {
            name: trial_of(resident, case, method, bench=bench) for name, resident in asked.items()
        }

    def _herds(self, residents: Residents) -> list[dict[str, StagedRouter]]:
        """Group the residents that the clause applies to by the cases that they can be given."""
        herds: dict[str, dict[str, StagedRouter]] = {}
        for name, resident in residents.items():
            if why_unsupported(resident, self.clause, resident.capabilities()) is None:
                drawn_from = replace(resident.capabilities(), logits="none", numerics=Numerics())
                herds.setdefault(repr(drawn_from), {})[name] = resident
        return list(herds.values())

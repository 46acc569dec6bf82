"""Encounters: one clause checked on many residents of the zoo, every case on all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.kinds import kind_of, trial_of
from moe_routing.conformance.checking.outcome import Outcome, evaluate
from moe_routing.conformance.checking.scope import adapter_scope
from moe_routing.conformance.checking.search import draw_cases
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.events.stock import STOCK
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.zoo.census.parade import Parade
from moe_routing.conformance.zoo.residents import Staged
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.implementations import Capabilities, Numerics

Part = Literal["all", "constructed", "drawn"]
"""Which cases of a clause are run."""

Residents = Mapping[str, Staged]
Routers = Mapping[str, StagedRouter]


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """The outcome of one resident in one case: drawn as number ``drawn``, or made by ``event``."""

    resident: str
    case: AnyCase
    outcome: Outcome
    drawn: int = 0
    event: str = ""


@dataclass(eq=False)
class Encounter:
    """One clause, and how many cases of it to draw.

    ``note`` is called with every broken outcome, and returns whether that resident is done.
    Residents whose claims are equal, where the clause depends on them, get the same cases
    and share the work of judging. ``together`` saves more where residents are right: their
    answers are judged in one batch, and cases drawn from the whole specification also run on
    residents that claim less of it, so that fewer are left to be drawn for these alone. ``part``
    leaves out the cases that are drawn, or those that are constructed.
    """

    clause: Clause
    seed: int
    max_examples: int
    note: Callable[[Seen], bool]
    together: bool
    part: Part = "all"
    cases: int = 0
    answers: int = 0
    _done: set[str] = field(default_factory=set)
    _drawn: Counter[str] = field(default_factory=Counter)

    def run(self, residents: Residents) -> None:
        """Run constructed cases, then drawn ones, on the residents that the clause applies to."""
        herds = self._herds(residents)
        if self.part != "drawn":
            for claimed, herd in herds:
                self._construct(claimed, herd)
        self._done.clear()
        if self.part != "constructed":
            for claimed, herd in herds:
                others = [guests for _, guests in herds if guests is not herd]
                self._draw(claimed, herd, others if self._draws_all(herd) else [])

    def _construct(self, claimed: Capabilities, herd: Residents) -> None:
        """Run the constructed cases of every event until each of ``herd`` is done."""
        for slug in self.clause.events:
            if any(map(self._is_due, herd)):
                for stocked in STOCK.checked(EVENTS[slug], claimed):
                    self._run_case(stocked.case, herd, event=slug, memo=stocked.memo)

    def _draws_all(self, herd: Residents) -> bool:
        """Return whether the cases drawn for ``herd`` are those of the whole specification."""
        whole = _without_details(next(iter(herd.values())).capabilities()) == Capabilities()
        return self.together and whole and self.clause.strategy is None

    def _draw(self, claimed: Capabilities, herd: Residents, others: Sequence[Residents]) -> None:
        """Draw cases until each of ``herd`` has had its share, or is done."""
        guests = {name: resident for each in others for name, resident in each.items()}

        def enough(case: AnyCase) -> bool:
            claiming = {
                name: guest
                for name, guest in guests.items()
                if self.clause.narrowed(guest.capabilities()).admits(case.config, case.inputs)
            }
            self._run_case(case, {**herd, **claiming})
            return not any(map(self._is_due, herd))

        if any(map(self._is_due, herd)):
            draw_cases(
                self.clause,
                claimed,
                suite_seed=self.seed,
                max_examples=self.max_examples,
                enough=enough,
            )

    def _is_due(self, name: str) -> bool:
        """Return whether a resident is to get more cases."""
        return name not in self._done and self._drawn[name] < self.clause.draws(self.max_examples)

    def _run_case(
        self, case: AnyCase, herd: Residents, *, event: str = "", memo: CaseMemo | None = None
    ) -> None:
        """Run a case on those of ``herd`` that are not done."""
        self.cases += 1
        due = {name: resident for name, resident in herd.items() if self._is_due(name)}
        for name, outcome in self._outcomes(due, case, memo or CaseMemo()):
            self.answers += 1
            self._drawn[name] += not event
            drawn = 0 if event else self._drawn[name]
            seen = Seen(resident=name, case=case, outcome=outcome, drawn=drawn, event=event)
            if outcome.broken and self.note(seen):
                self._done.add(name)

    def _outcomes(
        self, herd: Residents, case: AnyCase, memo: CaseMemo
    ) -> Iterator[tuple[str, Outcome]]:
        """Yield the clause's outcome for each of ``herd``, with one memo for all."""
        method = self.clause.method
        parade = None
        if self.together and kind_of(case).routes:
            parade = Parade(cast(Routers, herd), cast(Case, case), method, memo)
        for name, resident in herd.items():
            if parade is None:
                trial = trial_of(resident, case, method, memo=memo)
                yield name, evaluate(self.clause, trial)
            else:
                yield name, parade.outcome(self.clause, name)

    def _herds(self, residents: Residents) -> list[tuple[Capabilities, dict[str, Staged]]]:
        """Group the residents that the clause applies to by their narrowed claims."""
        herds: dict[str, tuple[Capabilities, dict[str, Staged]]] = {}
        for name, resident in residents.items():
            capabilities = resident.capabilities()
            if adapter_scope(resident, self.clause, capabilities) is None:
                claimed = self.clause.narrowed(_without_details(capabilities))
                herds.setdefault(repr(claimed), (claimed, {}))[1][name] = resident
        return list(herds.values())


def _without_details(capabilities: Capabilities) -> Capabilities:
    """Return the claims that cases are drawn from: all but the logits returned and the numerics."""
    return replace(capabilities, logits="none", numerics=Numerics())

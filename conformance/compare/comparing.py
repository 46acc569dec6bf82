"""One comparison: every case given to every router, counted, and the smallest cases kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.compare.cases import Picked, picked_cases
from moe_routing.conformance.compare.counts import Tables
from moe_routing.conformance.compare.routers import Router
from moe_routing.conformance.compare.routes import Cause, routes_of
from moe_routing.conformance.compare.smallest import Example, folder_name, smallest_example
from moe_routing.implementations import Capabilities

ENDS = 3
"""How often a router may end its process, or hang, before it is given no more cases."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison found: the routers, the counts, the smallest cases.

    ``ended`` are the routers that were given no more cases, since they ended or hung too often.
    """

    routers: Sequence[Router]
    plan: Plan
    profile: str
    device: str
    tables: Tables
    examples: Sequence[Example]
    ended: Sequence[Router] = ()

    @property
    def broken(self) -> list[Router]:
        """The routers of which some answer is wrong, or missing."""
        total = self.tables.total()
        return [
            each for each in self.routers if total.wrong[each.letter] or total.failed[each.letter]
        ]

    @property
    def exit_code(self) -> int:
        """0 where every difference is explained, 1 where some router is wrong, or none compared."""
        return 1 if self.broken or not self.tables.total().tokens else 0


@dataclass
class _Found:
    """The smallest case of every cause so far."""

    cases: dict[Cause, Case] = field(default_factory=dict)

    def note(self, cause: Cause, case: Case) -> None:
        if cause not in self.cases or _size(case) < _size(self.cases[cause]):
            self.cases[cause] = case

    def chosen(self) -> list[tuple[Cause, Case]]:
        """Return one cause for each router that is wrong, and all causes of differences."""
        kept: dict[str, Cause] = {}
        for cause in sorted(self.cases, key=lambda each: _size(self.cases[each])):
            kept.setdefault(cause[0] if cause[0] != "differ" else cause[1], cause)
        return [(cause, self.cases[cause]) for cause in sorted(kept.values())]


def _size(case: Case) -> int:
    return case.num_tokens * case.config.num_experts


def compare(
    routers: Sequence[Router],
    common: Capabilities,
    plan: Plan,
    *,
    profile: str,
    device: str,
    folder: Path,
    progress: Callable[[str, int], None] = lambda part, cases: None,
) -> Comparison:
    """Compare routers on what is ``common``; write the smallest cases to ``folder``.

    ``progress`` is called with the part and the number of cases so far.
    """
    everyone = [each.capabilities for each in routers]
    run = _Run([*routers])
    for number, picked in enumerate(picked_cases(common, everyone, plan)):
        progress(picked.part, number)
        run.take(picked)
        if len(run.given) < 2:
            break
    where = folder / folder_name(routers)
    examples = [
        smallest_example(run.about(cause, routers), cause, case, where, device)
        for cause, case in run.found.chosen()
    ]
    return Comparison(
        routers=routers,
        plan=plan,
        profile=profile,
        device=device,
        tables=run.tables,
        examples=examples,
        ended=[each for each in routers if each not in run.given],
    )


@dataclass
class _Run:
    """A comparison as it goes: ``given`` are the routers that are still given cases."""

    given: list[Router]
    tables: Tables = field(default_factory=Tables)
    found: _Found = field(default_factory=_Found)
    ends: Counter[str] = field(default_factory=Counter)

    def about(self, cause: Cause, routers: Sequence[Router]) -> Sequence[Router]:
        """Return the routers that a cause is about: the one that is wrong, or those still given."""
        return [each for each in routers if each.letter == cause[0]] or self.given

    def take(self, picked: Picked) -> None:
        """Give a case to the routers, and count what they answer."""
        routes = routes_of(picked.case, self.given)
        self.tables.note(picked, routes)
        for cause in routes.causes():
            self.found.note(cause, picked.case)
        for router, stage in zip(self.given, routes.stages, strict=True):
            self.ends[router.letter] += stage in ("crash", "timeout")
        self.given = [each for each in self.given if self.ends[each.letter] < ENDS]

"""One comparison: every case given to every router, counted, and the smallest cases kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.compare.cases import picked_cases
from moe_routing.conformance.compare.counts import Tables
from moe_routing.conformance.compare.routers import Router
from moe_routing.conformance.compare.routes import Cause, routes_of
from moe_routing.conformance.compare.smallest import Example, smallest_example
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
    tables, found, ends = Tables(), _Found(), Counter[str]()
    given = [*routers]
    for number, picked in enumerate(picked_cases(common, everyone, plan)):
        progress(picked.part, number)
        routes = routes_of(picked.case, given)
        tables.note(picked, routes)
        for cause in routes.causes():
            found.note(cause, picked.case)
        ends.update(
            each.letter
            for each, stage in zip(given, routes.stages, strict=True)
            if stage in ("crash", "timeout")
        )
        given = [each for each in given if ends[each.letter] < ENDS]
        if len(given) < 2:
            break
    examples = [
        smallest_example(routers, cause, case, folder, device) for cause, case in found.chosen()
    ]
    return Comparison(
        routers=routers,
        plan=plan,
        profile=profile,
        device=device,
        tables=tables,
        examples=examples,
        ended=[each for each in routers if each not in given],
    )

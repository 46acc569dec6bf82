"""The cases of a comparison: those of the clauses on routing, within what all routers claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.search import drawn_cases
from moe_routing.conformance.clauses import Clause
from moe_routing.implementations import Capabilities

EVENTS = "events"
"""The part of a comparison that are cases constructed for events."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picked:
    """A case, and the part it belongs to: a chapter, or ``EVENTS`` and the event."""

    part: str
    case: Case
    event: str = ""


def picked_cases(
    common: Capabilities, everyone: Sequence[Capabilities], plan: Plan
) -> Iterator[Picked]:
    """Yield the constructed case of every event, then the cases that the clauses draw.

    They are made from what is ``common`` and given only where ``everyone`` claims them.
    """
    clauses = [each for each in plan.clauses if each.method == "route" and not each.beyond_claims]
    for each in (*_constructed(common, clauses, plan), *_drawn_parts(common, clauses, plan)):
        yield from (one for one in each if claimed(one.case, everyone))


def _constructed(
    common: Capabilities, clauses: Sequence[Clause], plan: Plan
) -> Iterator[Iterator[Picked]]:
    """Yield, for every event, its case under the first clause whose claims have one."""
    seen: set[str] = set()

    def of(clause: Clause) -> Iterator[Picked]:
        narrowed = clause.narrowed(common)
        for event in clause.witnesses(bulk=plan.bulk) if narrowed.claims else ():
            if event.slug not in seen:
                for case in event.checked(narrowed):
                    seen.add(event.slug)
                    if isinstance(case, Case):
                        yield Picked(part=EVENTS, case=case, event=event.slug)

    return (of(clause) for clause in clauses)


def _drawn_parts(
    common: Capabilities, clauses: Sequence[Clause], plan: Plan
) -> Iterator[Iterator[Picked]]:
    def of(clause: Clause) -> Iterator[Picked]:
        narrowed = clause.narrowed(common)
        if not narrowed.claims:
            return
        drawn = drawn_cases(clause, narrowed, suite_seed=plan.seed, max_examples=plan.max_examples)
        for case in drawn:
            if isinstance(case, Case):
                yield Picked(part=clause.chapter, case=case)

    return (of(clause) for clause in clauses)


def claimed(case: AnyCase, everyone: Sequence[Capabilities]) -> bool:
    """Return whether a case is a valid call that every one of the routers claims."""
    try:
        replace(case.config)  # checks a configuration that was made without checks
    except ValueError:
        return False
    return all(each.admits(case.config, case.inputs) for each in everyone)

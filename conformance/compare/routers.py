"""The routers of a comparison: their seats, what each claims, what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.run.seat import About, CannotRun, Seat
from moe_routing.implementations import Capabilities

NO_ANSWER = ("error", "crash", "timeout")
"""What stands for the stage where a call has no answer: its status."""

CLAUSE_OF = {
    "in range": "selection.in-range",
    "distinct": "selection.distinct",
    "selection": "selection.valid-top-k",
    "logits": "logits.match",
    "weights": "weights.match",
    **dict.fromkeys(NO_ANSWER, "selection.valid-top-k"),
}
"""The clause that a wrong answer breaks, by the stage at which it is wrong."""


@dataclass(frozen=True, kw_only=True)
class Router:
    """One router of a comparison: ``letter`` and ``name`` stand for it, ``reference`` names it."""

    letter: str
    name: str
    reference: str
    about: About
    seat: Seat
    known: Sequence[Divergence] = field(default=(), repr=False)

    @property
    def capabilities(self) -> Capabilities:
        """What the router claims."""
        return self.about.capabilities

    def excused(self, stage: str, case: Case, facts: Bounds) -> str | None:
        """Return the known divergence that covers a case, wrong at a stage, or None."""
        for each in self.known:
            if each.touches(self.about.name, CLAUSE_OF[stage]) and each.covers(facts, case):
                return each.id
        return None


def open_routers(
    opened: Mapping[str, Callable[[], Seat]], known: Mapping[str, Sequence[Divergence]]
) -> list[Router]:
    """Open the seats of all adapters and load them; on an error, the open ones are closed.

    ``known`` are the divergences of each. Errors: ``CannotRun``, also for one without ``route``.
    """
    routers: list[Router] = []
    try:
        for reference, open_seat in opened.items():
            routers.append(_opened(len(routers), reference, open_seat(), known[reference]))
    except BaseException:
        close(routers)
        raise
    return _named_apart(routers)


def _opened(number: int, reference: str, seat: Seat, known: Sequence[Divergence]) -> Router:
    try:
        about = seat.about()
        if "route" in about.untried:
            raise CannotRun(f"{about.name} has no method route: there are no routes to compare")
    except BaseException:
        seat.close()
        raise
    mine = [
        each
        for each in known
        if about.name in each.adapters and each.witnesses[0].kind == Case.kind
    ]
    return Router(
        letter=letter(number),
        name=about.name,
        reference=reference,
        about=about,
        seat=seat,
        known=mine,
    )


def letter(number: int) -> str:
    """Return the letter of the router with a number: A to Z, then A1."""
    turn, place = divmod(number, 26)
    return f"{chr(ord('A') + place)}{turn or ''}"


def _named_apart(routers: Sequence[Router]) -> list[Router]:
    """Return the routers with names of their own: several of one name by their letters."""
    names = [each.name for each in routers]
    return [
        each if names.count(each.name) == 1 else _renamed(each, f"{each.name} ({each.letter})")
        for each in routers
    ]


def _renamed(router: Router, name: str) -> Router:
    fields_ = {**vars(router), "name": name}
    return Router(**fields_)


def close(routers: Sequence[Router]) -> None:
    """Close the seats."""
    for each in routers:
        each.seat.close()

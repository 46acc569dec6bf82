"""The clause registry: the single source of ids, statements, reasons, events and checks."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.clauses.rules import mistake
from moe_routing.conformance.clauses.shares import share_of
from moe_routing.conformance.events import EVENTS, HUGE, Event
from moe_routing.conformance.events.registry import thinned
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.choices import Focus, choose_call
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.implementations import Capabilities

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

CHAPTERS = (
    "logits",
    "scores",
    "groups",
    "selection",
    "weights",
    "layout",
    "invariance",
    "repetition",
    "robustness",
    "dispatch",
    "shared-experts",
    "permutation",
    "gradients",
    "experts",
    "layer",
    "capacity",
    "shards",
    "padding",
    "balance",
    "replay",
)
"""The chapters of the spec, in reading order; a clause id begins with one of them."""

Level = Literal["MUST", "SHOULD"]
Check = Callable[[Any], Failure | None]
"""Given the trial of the kind of case that the clause is about."""

Strategy = Callable[[Capabilities], "SearchStrategy[AnyCase] | Seeded[AnyCase]"]


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One requirement: what it says, why it is there, and how it is checked.

    ``rules`` are the ids of the rules of docs/spec that it is about; no clause is without one.
    ``narrow`` lists the axis values that it is about, by axis of ``Claim``; a backend that
    claims none of them does not support the clause. ``focus`` shapes the drawn cases, and
    ``strategy`` replaces them; ``beyond_claims`` marks a clause about calls that are not
    claimed. ``events`` are what a pass must have witnessed, and ``bulk`` those whose calls cost
    seconds, in a run that makes them (``Plan.bulk``), as ``huge`` are those whose calls cost
    gigabytes (``Plan.huge``). ``method`` is the adapter's method it
    calls, ``layout`` the result layout it is about, ``part`` an optional part of an answer that
    it is about, and ``needs`` returns why it does not apply to capabilities, naming their field
    or axis, or None. ``promise`` is the field of ``Promises``, or the axis that came after
    1.0, that it is on: it is left out for an adapter that promises, or claims, nothing there.
    ``most`` is the greatest number of cases that are
    drawn for it, where each costs many calls. ``without_tokens`` says that it checks something
    of calls without tokens, too.
    ``bugs`` names families of real bugs that it would have caught.
    """

    id: str
    level: Level
    statement: str
    why: str
    check: Check
    events: tuple[str, ...]
    bulk: tuple[str, ...] = ()
    huge: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    bugs: tuple[str, ...] = ()
    narrow: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    focus: Focus = field(default_factory=Focus)
    strategy: Strategy | None = None
    beyond_claims: bool = False
    method: str = "route"
    layout: str | None = None
    part: str | None = None
    without_tokens: bool = False
    needs: Callable[[Capabilities], str | None] = lambda capabilities: None
    promise: str | None = None
    most: int | None = None

    @property
    def chapter(self) -> str:
        """The chapter of the spec that the clause belongs to."""
        return self.id.partition(".")[0]

    def is_about(self, case: AnyCase) -> bool:
        """Whether ``case`` is of the kind that the clause is about."""
        return self.method in kind_of(case).methods

    def narrowed(self, capabilities: Capabilities) -> Capabilities:
        """Return the part of ``capabilities`` that the clause is about; may claim nothing."""
        narrow = dict(self.narrow)
        if self.method != "route" and _has_shared_slots(capabilities):
            narrow["shared_slots"] = (None,)
        return _narrowed(capabilities, narrow) if narrow else capabilities

    def cases(self, capabilities: Capabilities) -> SearchStrategy[AnyCase] | Seeded[AnyCase]:
        """Return what draws cases in the search for one that breaks the clause."""
        if self.strategy is not None:
            return self.strategy(capabilities)
        return Seeded(partial(choose_call, capabilities=capabilities, focus=self.focus))

    def draws(self, max_examples: int) -> int:
        """Return how many cases are drawn, where a run draws ``max_examples`` a clause."""
        drawn = share_of(self.id, max_examples)
        return drawn if self.most is None else min(drawn, self.most)

    def witnesses(
        self, *, bulk: bool = False, huge: bool = False, most: int | None = None
    ) -> list[Event]:
        """Return the events that a pass must have witnessed, with costly ones on request.

        ``most`` is how many there are of a large family, or None for all.
        """
        found = [EVENTS[slug] for slug in (*self.events, *(self.bulk if bulk else ()))]
        found += [HUGE[slug] for slug in self.huge if huge]
        return found if most is None else thinned(found, most)


_NARROWED: dict[tuple[int, tuple[Any, ...]], tuple[Capabilities, Capabilities]] = {}
_MOST_NARROWED = 256


def _narrowed(capabilities: Capabilities, narrow: Mapping[str, Any]) -> Capabilities:
    """Return narrowed capabilities: one object for all clauses that narrow one object alike."""
    key = id(capabilities), tuple(narrow.items())
    whole, part = _NARROWED.get(key, (None, None))
    if part is None or whole is not capabilities:
        if len(_NARROWED) >= _MOST_NARROWED:
            _NARROWED.clear()
        part = capabilities.narrowed(**narrow)
        _NARROWED[key] = capabilities, part
    return part


def _has_shared_slots(capabilities: Capabilities) -> bool:
    """Return whether shared slots are claimed, which ``route`` alone answers with."""
    return any(claim.shared_slots != (None,) for claim in capabilities.claims)


CLAUSES: dict[str, Clause] = {}
"""Every clause by its id; filled by importing ``moe_routing.conformance.clauses``."""


def rules_of(id: str) -> tuple[str, ...]:
    """Return the rules of the clause ``id``; none where there is no such clause."""
    return CLAUSES[id].rules if id in CLAUSES else ()


def clause(id: str, level: Level, **parts: Any) -> Callable[[Check], Check]:
    """Register the decorated check as a clause; its docstring is the statement.

    Errors: ``ValueError`` for an id twice, an unknown chapter, no rule or a malformed one, or
    an unknown event.
    """

    def register(check: Check) -> Check:
        statement = " ".join((check.__doc__ or "").split())
        made = Clause(id=id, level=level, statement=statement, check=check, **parts)
        if wrong := _misnamed(made) or mistake(made.rules):
            raise ValueError(f"Cannot register clause {id!r}: {wrong}")
        unknown = [slug for slug in made.events if slug not in EVENTS]
        if unknown or not made.events:
            raise ValueError(f"Cannot register clause {id!r}: unknown events {unknown}")
        CLAUSES[id] = made
        return check

    return register


def _misnamed(made: Clause) -> str | None:
    """Return what is wrong with the id or the statement of a new clause, in words, or None."""
    if made.id in CLAUSES:
        return "the id is taken"
    if made.chapter not in CHAPTERS:
        return f"{made.chapter!r} is no chapter of CHAPTERS"
    return None if made.statement else "it has no docstring, which is its statement"


class NoSuchClause(Exception):
    """A glob matches no clause; the message suggests the nearest ids."""


def select_clauses(globs: Sequence[str]) -> list[Clause]:
    """Return the clauses that any of ``globs`` matches, in chapter order; none given: all.

    Errors: ``NoSuchClause`` for a glob that matches nothing.
    """
    ordered = sorted(CLAUSES.values(), key=lambda c: CHAPTERS.index(c.chapter))
    wanted = set()
    for glob in globs:
        found = fnmatch.filter(CLAUSES, glob)
        if not found:
            near = difflib.get_close_matches(glob, CLAUSES, n=3)
            hint = f": did you mean {', '.join(near)}?" if near else "."
            raise NoSuchClause(f"No clause matches {glob!r}{hint} `moe-routing clauses` lists all")
        wanted.update(found)
    return [each for each in ordered if not globs or each.id in wanted]

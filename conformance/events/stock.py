"""The stock: constructed cases with what follows from them, made once for all of a process.

Many clauses need the same events, and many adapters claim the same: a case that is constructed for
one of them serves all, with its reference, its bounds and the verdicts on equal answers. Memory is
bounded: what was read longest ago goes first, and a series of large calls is made anew each time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of, trial_of
from moe_routing.conformance.events.registry import Event
from moe_routing.conformance.trial.memo import CaseMemo, contents_of
from moe_routing.implementations import Adapter, Capabilities

MOST = 2**28
"""The bytes that a stock holds, about."""

_SHARE = 8  # what the cases of one event may weigh, as a part of the whole
_OF_BOUNDS, _OF_VERDICT, _OF_OTHERS = 160, 40, 4
"""The bytes that each of these holds, by logit; and of others, by byte of the inputs."""


@dataclass(kw_only=True, eq=False)
class Stocked:
    """A constructed case, the memo that all trials of it share, and what both weighed last."""

    case: AnyCase
    memo: CaseMemo
    contents: Hashable
    weight: int = 0

    def grown(self) -> int:
        """Weigh it, and return how much more that is: what it holds grows as it is read."""
        before, self.weight = self.weight, self._weight()
        return self.weight - before

    def _weight(self) -> int:
        """The bytes that it holds, about: all that follows from a case has its size."""
        config, arrays = self.case.config, self.case.inputs.arrays().values()
        given = sum(int(each.nbytes) for each in arrays)
        logits = self.case.num_tokens * int(getattr(config, "num_experts", 0))
        bounds, verdicts, others = self.memo.counts
        of_logits = _OF_BOUNDS * bounds + _OF_VERDICT * verdicts
        return (1 + _OF_OTHERS * others) * given + of_logits * logits


@dataclass(eq=False)
class _Made:
    """What an event has constructed so far for some claims, and what constructs the rest."""

    rest: Iterator[Stocked]
    cases: list[Stocked] = field(default_factory=list)
    weight: int = 0

    def at(self, number: int) -> Stocked | None:
        """Return one of the cases, constructed if it was not yet; None where there are fewer."""
        if number == len(self.cases):
            self.cases += [found] if (found := next(self.rest, None)) is not None else []
        return self.cases[number] if number < len(self.cases) else None


@dataclass(eq=False)
class Stock:
    """Constructed cases by event and claims, and by their contents for claims that differ."""

    most: int = MOST
    _made: OrderedDict[Hashable, _Made] = field(default_factory=OrderedDict)
    _alike: dict[Hashable, Stocked] = field(default_factory=dict)
    _read: tuple[Capabilities, str] | None = None
    weight: int = 0

    def checked(self, event: Event, capabilities: Capabilities) -> Iterator[Stocked]:
        """Yield the cases that a clause runs for an event, as ``Event.checked`` makes them."""
        key = self._key(event, capabilities)
        if key not in self._made:
            self._made[key] = _Made(self._constructed(event, capabilities))
        self._made.move_to_end(key)
        made, number = self._made[key], 0
        while (stocked := self._at(key, made, number)) is not None:
            try:
                yield stocked
            finally:  # what was found of it since counts, too
                self._weigh(key, made, stocked)
            number += 1
            if not event.series:
                return

    def _key(self, event: Event, capabilities: Capabilities) -> Hashable:
        """Return what tells events and claims apart, in parts that hash at once."""
        kind = event.slug, event.occurs, event.cases, event.series, event.beyond
        return *kind, self._name(capabilities)

    def clear(self) -> None:
        """Hold nothing."""
        self._made.clear()
        self._alike.clear()
        self.weight = 0

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Hold nothing at first for a while, then again what was held before, and no more."""
        held = self._made, self._alike, self.weight
        self._made, self._alike, self.weight = OrderedDict(), {}, 0
        try:
            yield
        finally:
            self._made, self._alike, self.weight = held

    def _at(self, key: Hashable, made: _Made, number: int) -> Stocked | None:
        """Return a case; an event that cannot construct it is asked anew the next time."""
        with ExitStack() as undone:
            undone.callback(self._drop, key)
            stocked = made.at(number)
            undone.pop_all()
        if stocked is not None:
            self._weigh(key, made, stocked)
        return stocked

    def _weigh(self, key: Hashable, made: _Made, read: Stocked) -> None:
        """Weigh a case that was read, and let go of what is too much."""
        more = read.grown()
        made.weight += more
        if self._made.get(key) is made:
            self.weight += more
            self._alike[read.contents] = read
        if made.weight > self.most // _SHARE:
            self._drop(key)
        while self.weight > self.most:
            self._drop(next(iter(self._made)))

    def _constructed(self, event: Event, capabilities: Capabilities) -> Iterator[Stocked]:
        last: list[Stocked] = []
        common = CaseMemo() if event.series else None  # batches of the same few tokens

        def facts(case: AnyCase, claimed: Capabilities) -> Any:
            last[:] = [self._like(case, common)]
            return _facts(last[0], claimed)

        for _ in event.shown(capabilities, facts):
            yield last[0]

    def _like(self, case: AnyCase, memo: CaseMemo | None) -> Stocked:
        """Return the stocked case of equal contents, or this one with a memo of its own."""
        if sum(int(each.nbytes) for each in case.inputs.arrays().values()) > self.most // _SHARE:
            return Stocked(case=case, memo=memo or CaseMemo(), contents=id(case))
        known = contents_of(case.inputs.arrays())
        words = tuple(getattr(case.inputs, name, None) for name in kind_of(case).words)
        key = type(case), repr(case.config), case.recipe, words, known
        return self._alike.get(key) or Stocked(case=case, memo=memo or CaseMemo(), contents=key)

    def _drop(self, key: Hashable) -> None:
        """Let go of what an event has constructed, where that is held."""
        if (made := self._made.pop(key, None)) is not None:
            self.weight -= made.weight
            for stocked in made.cases:
                self._alike.pop(stocked.contents, None)

    def _name(self, capabilities: Capabilities) -> str:
        """Return what claims read like; they are read once as long as they are the last."""
        if self._read is None or self._read[0] is not capabilities:
            self._read = capabilities, repr(capabilities)
        return self._read[1]


def _facts(stocked: Stocked, claimed: Capabilities) -> Any:
    """Return what events are read off, as the trials of the case will find it."""
    any_adapter = cast(Adapter, _Claiming(claimed))
    method = kind_of(stocked.case).methods[0]
    return trial_of(any_adapter, stocked.case, method, memo=stocked.memo).facts


@dataclass(frozen=True, eq=False)
class _Claiming:
    """Stands for any adapter of these capabilities, of which no more is read."""

    claimed: Capabilities
    name: str = "any"

    def capabilities(self) -> Capabilities:
        return self.claimed


STOCK = Stock()
"""The stock of this process; forks of it inherit what it holds."""

"""The parade: the trials of one case by many routers, whose answers are judged together.

Most routers of the zoo differ from the plain one in what a case does not exercise, and then
return the plain router's own answer object. It is read once, and where one router gives the
same answers to all calls that a clause made of another, the clause's outcome holds for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from moe_routing.conformance.calls.memory import with_fresh_arrays
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.checking.outcome import Outcome, evaluate
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.judge import Answer, Bounds, Verdict
from moe_routing.conformance.trial.boundary import Malformed, Received, receive
from moe_routing.conformance.trial.call import Call, Raised, called
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.trial.trial import Trial
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.implementations import Adapter, Capabilities
from moe_routing.reference import RouterInputs

Logits = Literal["routed", "copy", "none"]


@dataclass(eq=False)
class Parade:
    """A case, and the routers on which one clause runs it, each in a trial of its own.

    When the first is to be judged, all are called, and their answers are judged in one batch;
    likewise where the clause derives a case that it makes once for all (``Trial.once``).
    """

    routers: Mapping[str, StagedRouter]
    case: Case
    method: str
    memo: CaseMemo
    trials: dict[str, _InParade] = field(init=False)
    _passed: list[str] = field(default_factory=list)
    _alone: set[str] = field(default_factory=set)
    _bounds: dict[int, Bounds] = field(default_factory=dict)
    _received: dict[int, tuple[object, Received]] = field(default_factory=dict)
    _judged: dict[int, Bounds] = field(default_factory=dict)
    _derived: dict[int, Parade] = field(default_factory=dict)
    _taken: dict[str, list[Parade]] = field(default_factory=dict)
    _inputs: RouterInputs | None = None

    def __post_init__(self) -> None:
        self.trials = {
            name: _InParade(router, self.case, self.method, memo=self.memo, parade=self)
            for name, router in self.routers.items()
        }

    def outcome(self, clause: Clause, name: str) -> Outcome:
        """Return the outcome of ``clause`` for a router: one for all that answer the same."""
        if any(self._alike(passed, name) for passed in self._passed):
            return Outcome()
        outcome = evaluate(clause, self.trials[name])
        if not outcome.broken:
            self._passed.append(name)
        return outcome

    def _alike(self, passed: str, name: str) -> bool:
        """Return whether a router gives every answer that one that has passed gave.

        It is called for each. Only answers that are one object count, since then nothing that
        a clause could read differs; and only of routers of the same claims, so that the clause
        makes the same calls of both.
        """
        one, other = self.trials[passed], self.trials[name]
        if passed in self._alone or one.capabilities is not other.capabilities:
            return False
        return (not one.answered or _same_call(one, other)) and all(
            each._alike(passed, name) for each in self._taken.get(passed, ())
        )

    def leave(self, name: str) -> None:
        """Record that a router was called outside the parade, or raised: no other is like it."""
        self._alone.add(name)

    def bounds(self, capabilities: Capabilities) -> Bounds:
        """Return the bounds of the case for all routers that share ``capabilities``."""
        if id(capabilities) not in self._bounds:
            numerics = capabilities.numerics
            self._bounds[id(capabilities)] = self.memo.bounds(self.case, numerics)
        return self._bounds[id(capabilities)]

    def received(self, native: object) -> Received:
        """Return an answer, described and converted, once for all routers that return it."""
        if id(native) not in self._received:
            read = receive(native, self.case.config, self.case.inputs.num_tokens, hides=True)
            self._received[id(native)] = native, read
        return self._received[id(native)][1]

    def judge(self, first: Trial, bounds: Bounds) -> None:
        """Judge by ``bounds`` the answers of all trials whose own bounds are those of ``first``."""
        if id(bounds) in self._judged:
            return
        self._judged[id(bounds)] = bounds
        alike: dict[tuple[Logits, bool], list[Answer]] = {}
        for trial in self.trials.values():
            answer = _answer(trial) if trial.bounds is first.bounds else None
            if answer is not None:
                kind = trial.capabilities.logits, answer.logits is None
                alike.setdefault(kind, []).append(answer)
        for (logits, _), answers in alike.items():
            self.memo.judge_all(bounds, answers, logits)

    def call(self, router: Adapter) -> Call:
        """Call a router; inputs that it leaves unchanged are passed to the next one."""
        inputs = self._inputs or with_fresh_arrays(self.case.inputs)
        self._inputs = None
        call = called(router, self.method, self.case, inputs)
        if not call.changed:
            self._inputs = inputs
        return call

    def derived(self, name: str, case: Case) -> Trial:
        """Return a router's trial of a case derived from this one: a new trial each time."""
        parade, taken = self._derived.get(id(case)), self._taken.setdefault(name, [])
        if parade is None or parade in taken:
            parade = self._derived[id(case)] = Parade(self.routers, case, self.method, self.memo)
        taken.append(parade)
        return parade.trials[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class _InParade(Trial):
    """A trial that is judged together with the others of its parade."""

    parade: Parade

    @property
    def answered(self) -> bool:
        """Whether the router has been called, and has answered."""
        return "_call" in vars(self)

    @cached_property
    def _call(self) -> Call:
        try:
            return self.parade.call(self.adapter)
        except Raised:
            self.parade.leave(self.adapter.name)
            raise

    @cached_property
    def bounds(self) -> Bounds:
        return self.parade.bounds(self.capabilities)

    @cached_property
    def shown(self) -> Received:
        return self.parade.received(self.native)

    def judged_as(self, bounds: Bounds) -> Verdict:
        self.parade.judge(self, bounds)
        return super().judged_as(bounds)

    def another(self, case: Case) -> Trial:
        self.parade.leave(self.adapter.name)
        return super().another(case)

    def of(self, case: Case) -> Trial:
        if self.memo.has_made(case):
            return self.parade.derived(self.adapter.name, case)
        self.parade.leave(self.adapter.name)
        return super().of(case)


def _same_call(one: _InParade, other: _InParade) -> bool:
    """Return whether two calls returned the same object, and changed the same."""
    try:
        same = other.native is one.native
    except Raised:
        return False
    return same and other.changed == one.changed and other.modes == one.modes


def _answer(trial: Trial) -> Answer | None:
    """Return a trial's answer, or None if there is none to judge."""
    try:
        return trial.received.answer
    except (Raised, Malformed):
        return None

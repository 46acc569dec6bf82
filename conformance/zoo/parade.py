"""The parade: the trials of one case by many routers, whose answers are judged together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from moe_routing.conformance.bench import Bench
from moe_routing.conformance.boundary import Malformed
from moe_routing.conformance.case import Case, with_fresh_arrays
from moe_routing.conformance.judge import Answer, Bounds, Verdict
from moe_routing.conformance.trial import Call, Raised, Trial, called
from moe_routing.conformance.zoo.router import StagedRouter
from moe_routing.implementations import Adapter
from moe_routing.reference import RouterInputs

Logits = Literal["routed", "copy", "none"]


@dataclass(eq=False)
class Parade:
    """A case, and the routers that it is put to by one clause, each in a trial of its own.

    When the first is to be judged, all are asked, and what they answer is judged in one go;
    likewise where the clause turns to a case that it makes once for all (``Trial.once``).
    """

    routers: Mapping[str, StagedRouter]
    case: Case
    method: str
    bench: Bench
    trials: dict[str, Trial] = field(init=False)
    _judged: dict[int, Bounds] = field(default_factory=dict)
    _derived: dict[int, Parade] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _given: RouterInputs | None = None

    def __post_init__(self) -> None:
        self.trials = {
            name: _InParade(router, self.case, self.method, bench=self.bench, parade=self)
            for name, router in self.routers.items()
        }

    def judge(self, asked: Trial, bounds: Bounds) -> None:
        """Judge by ``bounds`` the answers of all whose own bounds are those of ``asked``."""
        if id(bounds) in self._judged:
            return
        self._judged[id(bounds)] = bounds
        alike: dict[tuple[Logits, bool], list[Answer]] = {}
        for trial in self.trials.values():
            answer = _answer(trial) if trial.bounds is asked.bounds else None
            if answer is not None:
                kind = trial.capabilities.logits, answer.logits is None
                alike.setdefault(kind, []).append(answer)
        for (logits, _), answers in alike.items():
            self.bench.judge_all(bounds, answers, logits)

    def call(self, router: Adapter) -> Call:
        """Ask a router; inputs that the one before left unchanged are given to the next."""
        given = self._given or with_fresh_arrays(self.case.inputs)
        self._given = None
        call = called(router, self.method, self.case, given)
        if not call.changed:
            self._given = given
        return call

    def derived(self, name: str, case: Case) -> Trial:
        """Return a router's trial of a case made of this one: each time a new one."""
        parade = self._derived.get(id(case))
        if parade is None or name in parade._taken:
            parade = self._derived[id(case)] = Parade(self.routers, case, self.method, self.bench)
        parade._taken.add(name)
        return parade.trials[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class _InParade(Trial):
    """A trial that is judged together with the others of its parade."""

    parade: Parade

    @cached_property
    def _call(self) -> Call:
        return self.parade.call(self.adapter)

    def judged_as(self, bounds: Bounds) -> Verdict:
        self.parade.judge(self, bounds)
        return super().judged_as(bounds)

    def of(self, case: Case) -> Trial:
        if self.bench.has_made(case):
            return self.parade.derived(self.adapter.name, case)
        return super().of(case)


def _answer(trial: Trial) -> Answer | None:
    """Return a trial's answer; None where there is none to judge."""
    try:
        return trial.received.answer
    except (Raised, Malformed):
        return None

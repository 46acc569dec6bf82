"""The trial of a routing case: its answer, received and judged when first read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.judge import Answer, Bounds, Verdict
from moe_routing.conformance.judge.allowance import allowance_used
from moe_routing.conformance.judge.hidden import revealed
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed, Received, receive
from moe_routing.conformance.trial.call import Call
from moe_routing.conformance.trial.few import SpreadBounds
from moe_routing.conformance.trial.several import calls_at_once, calls_in_place


@dataclass(frozen=True, eq=False)
class Trial(BaseTrial[Case]):
    """One routing case for one adapter."""

    method: str = "route"

    @cached_property
    def bounds(self) -> Bounds:
        """The reference and the bounds of the case."""
        config, numerics = self.lenience.applied(self.case.config, self.capabilities.numerics)
        case = self.case if config is self.case.config else replace(self.case, config=config)
        return self.memo.bounds(case, numerics)

    @property
    def facts(self) -> Bounds:
        """The value that events are read from."""
        return self.bounds.facts if isinstance(self.bounds, SpreadBounds) else self.bounds

    @cached_property
    def shown(self) -> Received:
        """The answer as it shows, described and converted. Errors: ``Raised``, ``Malformed``."""
        try:
            tokens = self.case.inputs.num_tokens
            return receive(self.native, self.case.config, tokens, hides=True)
        except Malformed as error:
            error.case = self.case
            raise

    @cached_property
    def received(self) -> Received:
        """The answer with the members that a dense one does not show. Errors: as ``shown``."""
        if self.shown.layout != "DenseRouting":
            return self.shown
        return replace(self.shown, answer=self._whole(self.bounds))

    def _whole(self, bounds: Bounds) -> Answer:
        if self.shown.layout != "DenseRouting":
            return self.shown.answer
        routed = self.capabilities.logits == "routed"
        return revealed(bounds, self.shown.answer, routed=routed)

    @property
    def layout(self) -> str:
        """The name of the layout of the answer. Errors: as ``received``."""
        return self.received.layout

    @cached_property
    def verdict(self) -> Verdict:
        """The judge's verdict on the answer. Errors: as ``received``."""
        return self.judged_as(self.bounds)

    @property
    def allowance_used(self) -> float:
        """The share of its allowance that the answer used, where it has been judged; else 0."""
        return allowance_used(self.verdict) if "verdict" in self.__dict__ else 0.0

    def judged_as(self, bounds: Bounds) -> Verdict:
        """Judge the answer by other bounds: those of a case that means the same."""
        answer = self.received.answer if bounds is self.bounds else self._whole(bounds)
        return self.memo.verdict(bounds, answer, self.capabilities.logits)

    def claims(self, case: Case) -> bool:
        """Whether the backend claims ``case``."""
        return self.capabilities.admits(case.config, case.inputs)

    def of(self, case: Case) -> Trial:
        """Return the trial of another case. Errors: ``Excused`` where that is known to differ."""
        return self.unless_known(self.another(case))

    def another(self, case: Case) -> Trial:
        """Return the trial of another case, whether a known divergence covers it or not."""
        return Trial(
            *(self.adapter, case, self.method, self.is_known, self.memo, self.lenience),
            repeats=self.repeats,
        )

    def repeated(self) -> Iterator[Trial]:
        """Yield trials of the same call, made again ``repeats`` times."""
        return (self.another(self.case) for _ in range(self.repeats))

    def updated(self, case: Case) -> Trial:
        """Return the trial of a case that is written into the arrays of this one's call.

        The arrays of both have the same shapes, types and strides. Errors: as ``of``.
        """
        later = self.of(case)
        calls = calls_in_place(self.adapter, self.method, self.case, case)
        return Made(**{**_fields(later), "made": calls[-1]})

    def at_once(self, case: Case) -> Sequence[Trial]:
        """Return trials of this case and another, called again and again at the same time.

        Errors: as ``of``.
        """
        later = self.of(case)
        calls = calls_at_once(self.adapter, self.method, (self.case, case))
        return [
            Made(**{**_fields(trial), "made": call})
            for trial, made in zip((self, later), calls, strict=True)
            for call in made
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Made(Trial):
    """The trial of a call that has been made already, together with others."""

    made: Call

    @property
    def _call(self) -> Call:
        return self.made


def _fields(trial: Trial) -> dict[str, Any]:
    return {each.name: getattr(trial, each.name) for each in fields(Trial)}

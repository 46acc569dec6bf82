"""A trial of any kind: one case run on one backend, and what a clause can read of the call."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.memory import with_fresh_arrays
from moe_routing.conformance.trial.call import Call, called
from moe_routing.conformance.trial.lenience import STRICT, Lenience
from moe_routing.conformance.trial.memo import CaseMemo
from moe_routing.conformance.trial.repeats import REPEATS
from moe_routing.conformance.trial.several import calls_in_place
from moe_routing.implementations import Adapter, Capabilities

Made = TypeVar("Made")
CaseT = TypeVar("CaseT", bound=AnyCase)
TrialT = TypeVar("TrialT", bound="BaseTrial[Any]")


class Unchecked(Exception):
    """The clause has nothing to check in its case; the message says why."""


class Excused(Unchecked):
    """The clause derived a case that a known divergence covers; skip it."""

    def __init__(self) -> None:
        super().__init__("a known divergence covers what the clause makes of the case")


@dataclass(frozen=True, eq=False)
class BaseTrial(Generic[CaseT]):
    """One case for one adapter; the call is made when its result is first read.

    ``is_known`` returns whether a known divergence covers a trial. What follows from a case
    alone is cached in ``memo``, which the trials that a clause derives share, and which may
    be passed to the trials of other adapters on the same case. ``lenience`` is what the judge
    grants beyond the claims. ``repeats`` is how often a call is made again, where a clause
    repeats it (``repetition.every-time``).
    """

    adapter: Adapter
    case: CaseT
    method: str
    is_known: Callable[[BaseTrial[Any]], bool] = lambda trial: False
    memo: CaseMemo = field(default_factory=CaseMemo)
    lenience: Lenience = STRICT
    repeats: int = REPEATS

    @cached_property
    def capabilities(self) -> Capabilities:
        """The adapter's capabilities."""
        return self.adapter.capabilities()

    @property
    def facts(self) -> Any:
        """The value that events are read from."""
        return self.case

    @property
    def layout(self) -> str | None:
        """The name of the layout of the answer, where there are several. Errors: ``Raised``."""
        return None

    @property
    def parts(self) -> frozenset[str]:
        """The optional parts that the answer has, where a layout has any. Errors: ``Raised``."""
        return frozenset()

    @property
    def allowance_used(self) -> float:
        """The share of its allowance that the answer used, where it has been judged; else 0."""
        return 0.0

    @property
    def native(self) -> Any:
        """The backend's own return value. Errors: ``Raised``."""
        return self._call.native

    @property
    def changed(self) -> list[str]:
        """The inputs that the backend changed, by name. Errors: ``Raised``."""
        return self._call.changed

    @property
    def modes(self) -> list[str]:
        """The floating-point modes that the backend changed, in words. Errors: ``Raised``."""
        return self._call.modes

    def excuses(self, case: CaseT) -> bool:
        """Whether a known divergence covers ``case``."""
        return self.is_known(self.another(case))

    def once(self, make: Callable[..., Made], *settings: Hashable) -> Made:
        """Return ``make(case, *settings)``, computed once and shared by every trial of the case."""
        made: Made = self.memo.once(self.case, make, *settings)
        return made

    def of(self, case: CaseT) -> BaseTrial[CaseT]:
        """Return the trial of another case with the same backend and method.

        Errors: ``Excused`` where a known divergence covers that case.
        """
        return self.unless_known(self.another(case))

    def another(self, case: CaseT) -> BaseTrial[CaseT]:
        """Return the trial of another case, whether a known divergence covers it or not."""
        return type(self)(
            *(self.adapter, case, self.method, self.is_known, self.memo, self.lenience),
            repeats=self.repeats,
        )

    def updated(self, case: CaseT) -> BaseTrial[CaseT]:
        """Return the trial of a case that is written into the arrays of this one's call.

        The arrays of both have the same shapes, types and strides. Errors: as ``of``.
        """
        later = self.of(case)
        vars(later)["_call"] = calls_in_place(self.adapter, self.method, self.case, case)[-1]
        return later

    def unless_known(self, other: TrialT) -> TrialT:
        """Return another trial. Errors: ``Excused`` where a known divergence covers it."""
        if self.is_known(other):
            raise Excused
        return other

    @cached_property
    def _call(self) -> Call:
        return called(self.adapter, self.method, self.case, with_fresh_arrays(self.case.inputs))


AnyTrial = BaseTrial[Any]
"""A trial of any kind."""

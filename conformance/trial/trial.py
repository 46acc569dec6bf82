"""A trial: one case put to one backend, and everything a clause may ask about it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.cases.case import Case, SharedCase, with_fresh_arrays
from moe_routing.conformance.judge import Bounds, Verdict
from moe_routing.conformance.trial import floatmode
from moe_routing.conformance.trial.boundary import Received, receive, to_numpy
from moe_routing.conformance.trial.journal import noted
from moe_routing.conformance.trial.memo import Bench
from moe_routing.implementations import (
    Adapter,
    BackendLost,
    BackendMissing,
    Capabilities,
    Unsupported,
)
from moe_routing.implementations.tensors import Watched, watching_tensors
from moe_routing.reference import RouterInputs, SharedExpertInputs

Made = TypeVar("Made")


class Raised(Exception):
    """The backend raised on a call that it claims; ``__cause__`` is what it raised."""


class Excused(Exception):
    """The clause turned to a case that a known divergence covers: there is nothing to ask."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """What came of calling the backend once: its answer, and by name what it changed."""

    native: Any
    changed: list[str]
    modes: list[str]


@dataclass(frozen=True, eq=False)
class SharedTrial:
    """One shared-expert case for one adapter; the call is made when first asked for."""

    adapter: Adapter
    case: SharedCase
    method: str = "shared_experts"

    @cached_property
    def capabilities(self) -> Capabilities:
        """The adapter's capabilities."""
        return self.adapter.capabilities()

    @property
    def native(self) -> Any:
        """The backend's own return value. Errors: ``Raised``."""
        return self._call.native

    @property
    def changed(self) -> list[str]:
        """The inputs that the backend changed, by name. Errors: ``Raised``."""
        return self._call.changed

    @cached_property
    def _call(self) -> Call:
        return called(self.adapter, self.method, self.case, with_fresh_arrays(self.case.inputs))


@dataclass(frozen=True, eq=False)
class Trial:
    """One routing case for one adapter; answer and verdict are made when first asked for.

    Bounds and verdicts are kept at the ``bench``, which the trials that a clause derives
    share, and which may be given to the trials of other adapters on the same case.
    """

    adapter: Adapter
    case: Case
    method: str = "route"
    is_known: Callable[[Trial], bool] = lambda trial: False
    bench: Bench = field(default_factory=Bench)

    @cached_property
    def capabilities(self) -> Capabilities:
        """The adapter's capabilities."""
        return self.adapter.capabilities()

    @cached_property
    def bounds(self) -> Bounds:
        """The reference and the bounds of the case."""
        return self.bench.bounds(self.case, self.capabilities.numerics)

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

    @cached_property
    def received(self) -> Received:
        """The answer, described and converted. Errors: ``Raised``, ``Malformed``."""
        return receive(self.native, self.case.config, self.case.inputs.num_tokens)

    @cached_property
    def verdict(self) -> Verdict:
        """The judge's verdict on the answer. Errors: as ``received``."""
        return self.judged_as(self.bounds)

    def judged_as(self, bounds: Bounds) -> Verdict:
        """Judge the answer by other bounds: those of a case that means the same."""
        return self.bench.verdict(bounds, self.received.answer, self.capabilities.logits)

    def claims(self, case: Case) -> bool:
        """Tell whether the backend claims ``case``."""
        return self.capabilities.admits(case.config, case.inputs)

    def excuses(self, case: Case) -> bool:
        """Tell whether a known divergence covers ``case``."""
        return self.is_known(Trial(self.adapter, case, self.method, self.is_known, self.bench))

    def once(self, make: Callable[..., Made], *settings: Hashable) -> Made:
        """Return ``make(case, *settings)``, made once for all trials of the case at the bench."""
        made: Made = self.bench.made(self.case, make, *settings)
        return made

    def of(self, case: Case) -> Trial:
        """Return the trial of another case with the same backend and method.

        Errors: ``Excused`` where a known divergence covers that case.
        """
        other = Trial(self.adapter, case, self.method, self.is_known, self.bench)
        if self.is_known(other):
            raise Excused
        return other

    @cached_property
    def _call(self) -> Call:
        return called(self.adapter, self.method, self.case, with_fresh_arrays(self.case.inputs))


def trial_of(
    adapter: Adapter,
    case: Case | SharedCase,
    method: str,
    is_known: Callable[[Trial], bool] = lambda trial: False,
    bench: Bench | None = None,
) -> Trial | SharedTrial:
    """Return the trial that fits the kind of ``case``; without a ``bench``, at one of its own."""
    if isinstance(case, SharedCase):
        return SharedTrial(adapter, case, method)
    return Trial(adapter, case, method, is_known, bench or Bench())


def called(
    adapter: Adapter,
    method: str,
    case: Case | SharedCase,
    given: RouterInputs | SharedExpertInputs,
) -> Call:
    """Call the backend with ``given``, the inputs of ``case`` in memory of their own.

    Its tensors, its inputs and the floating-point mode are watched.
    """
    mode = floatmode.current()
    try:
        with watching_tensors() as watched, noted(case):
            native = getattr(adapter, method)(case.config, given)
    except (BackendLost, BackendMissing, KeyboardInterrupt):
        raise
    except Unsupported as refusal:
        raise Raised(f"raised Unsupported on a call that it claims: {refusal}") from refusal
    except BaseException as error:  # an exit, too, is an answer that a clause has to report
        raise Raised(f"raised {in_words(error)}") from error
    finally:
        modes = floatmode.restore(mode)
    return Call(native=native, changed=_changed(watched, given.arrays(), case), modes=modes)


def in_words(error: BaseException) -> str:
    """Return an exception in one line, even where it cannot say what it is."""
    try:
        words = " ".join(str(error).split())
    except Exception as worse:
        words = f"its message cannot be read ({type(worse).__name__})"
    return f"{type(error).__name__}: {words}"[:280]


def _changed(
    watched: list[Watched], after: dict[str, npt.NDArray[Any]], case: Case | SharedCase
) -> list[str]:
    before = case.inputs.arrays()
    names = [
        each.name
        for each in watched
        if not _same(to_numpy(each.name, each.tensor), before.get(each.name, each.array))
    ]
    names += [
        f"{each.name} (the memory between its elements)"
        for each in watched
        if each.memory is not None
        and each.name not in names
        and not _same(to_numpy(each.name, each.memory), to_numpy(each.name, each.before))
    ]
    names += [name for name in before if not _same(after[name], before[name])]
    return list(dict.fromkeys(names))


def _same(now: npt.NDArray[Any], before: npt.NDArray[Any]) -> bool:
    alike = now.dtype == before.dtype and now.shape == before.shape
    if alike and now.tobytes() == before.tobytes():
        return True
    return bool(np.array_equal(now, before, equal_nan=now.dtype.kind == "f"))

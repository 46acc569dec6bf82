"""The seat: where an adapter runs, in this process or in one of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.checking.answered import Answered, answer_case
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.replay import Replayed, replay_case
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.checking.scope import untried_methods
from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.trial.call import in_words
from moe_routing.implementations import (
    Adapter,
    AdapterError,
    BackendMissing,
    Capabilities,
    Closes,
    load_adapter,
)
from moe_routing.implementations.ranks import OnRanks


class CannotRun(Exception):
    """An adapter cannot run at all; the message is the reason, ``status`` the result."""

    def __init__(self, message: str, status: Status = "error") -> None:
        super().__init__(message)
        self.status: Status = status


@dataclass(frozen=True, kw_only=True)
class About:
    """The head of an adapter's report: its name, what it wraps, what it claims and declares.

    ``untried`` are the methods of other protocols than its own, whose clauses are skipped.
    ``start_seconds`` is what its start took: a process, its imports and a first call.
    """

    name: str
    package: str | None
    version: str | None
    capabilities: Capabilities
    untried: tuple[str, ...] = ()
    start_seconds: float | None = None


class Seat(Protocol):
    """An adapter as the engine sees it. Every method may raise ``CannotRun``."""

    def about(self) -> About:
        """Return the head of its report, loading the adapter if necessary."""

    def check(
        self, clause: Clause, past: tuple[str, ...] = (), *, shrinks: bool = True
    ) -> ClauseResult:
        """Check one clause, ``past`` some edges; ``shrinks``: and make what fails smaller."""

    def replay(self, clause: Clause, case: AnyCase) -> Replayed:
        """Run one case on the adapter."""

    def answer(self, case: Case) -> Answered:
        """Return the adapter's answer to a routing case, not judged."""

    def threads(self) -> int | None:
        """Return the threads that its framework computes with, where that is known."""

    def close(self) -> None:
        """Release what the seat holds."""


class InProcess:
    """An adapter in this process: what it changes there, it changes for the whole run."""

    def __init__(self, load: Callable[[], Adapter], plan: Plan) -> None:
        self._load, self._plan = load, plan
        self._adapter: Adapter | None = None

    @property
    def adapter(self) -> Adapter:
        """The adapter, loaded on first use. Errors: ``CannotRun``."""
        if self._adapter is None:
            try:
                self._adapter = self._load()
            except (AdapterError, BackendMissing) as error:
                raise CannotRun(str(error)) from error
        return self._adapter

    def about(self) -> About:
        """Return the head of its report."""
        return about(self.adapter)

    def check(
        self, clause: Clause, past: tuple[str, ...] = (), *, shrinks: bool = True
    ) -> ClauseResult:
        """Check one clause."""
        plan = replace(self._plan, past=past, shrinks=shrinks)
        try:
            return check_clause(self.adapter, clause, plan)
        except BackendMissing as error:
            raise CannotRun(str(error)) from error

    def replay(self, clause: Clause, case: AnyCase) -> Replayed:
        """Run one case on the adapter."""
        try:
            return replay_case(self.adapter, clause, case, repeats=self._plan.repeats)
        except BackendMissing as error:
            raise CannotRun(str(error)) from error

    def answer(self, case: Case) -> Answered:
        """Return the adapter's answer to a routing case, not judged."""
        try:
            return answer_case(self.adapter, case)
        except BackendMissing as error:
            raise CannotRun(str(error)) from error

    def threads(self) -> int | None:
        """Return the threads that torch computes with, if it was imported."""
        return torch_threads()

    def close(self) -> None:
        """Close the adapter; an exception from that does not end the run."""
        if self._adapter is None:
            return
        try:
            close(self._adapter)
        except (Exception, SystemExit) as error:
            words = f"moe-routing: {self._adapter.name}: close raised {in_words(error)}"
            print(words, file=sys.stderr)


def loaded(
    reference: str, device: str, ranks: int | None, seconds: float, others: Any = None
) -> Adapter:
    """Return the adapter that ``reference`` names, or with ``ranks`` so many of it at once.

    A call of these may take ``seconds``; ``others`` are those of a launcher. Errors:
    ``AdapterError``, ``BackendMissing``.
    """
    if ranks is None:
        return load_adapter(reference, device=device)
    return OnRanks(reference, ranks, device=device, seconds=seconds, others=others)


def about(adapter: Adapter) -> About:
    """Return the head of an adapter's report."""
    package, installed = wrapped(adapter)
    return About(
        name=adapter.name,
        package=package,
        version=installed,
        capabilities=adapter.capabilities(),
        untried=untried_methods(adapter),
    )


def wrapped(adapter: Adapter) -> tuple[str | None, str | None]:
    """Return the distribution that an adapter wraps, and its installed version."""
    package = getattr(adapter, "wraps", None)
    if package is None:
        return None, None
    try:
        return package, version(package)
    except PackageNotFoundError:
        return package, None


def close(adapter: Adapter | None) -> None:
    """Close an adapter, if it has a method for that."""
    if isinstance(adapter, Closes):
        adapter.close()


def torch_threads() -> int | None:
    """Return the threads that torch computes with in this process, if it was imported."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())

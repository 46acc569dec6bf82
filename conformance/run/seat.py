"""The seat: where an adapter sits while it is asked, in this process or in one of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.replay import Replayed, replay_case
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.trial.call import in_words
from moe_routing.implementations import (
    Adapter,
    AdapterError,
    BackendMissing,
    Capabilities,
    Closes,
)


class CannotRun(Exception):
    """An adapter cannot be asked at all; the message says why, ``status`` what came of it."""

    def __init__(self, message: str, status: Status = "error") -> None:
        super().__init__(message)
        self.status: Status = status


@dataclass(frozen=True, kw_only=True)
class About:
    """What heads an adapter's report: its name, what it wraps, what it claims and declares."""

    name: str
    package: str | None
    version: str | None
    capabilities: Capabilities


class Seat(Protocol):
    """An adapter as the engine sees it. Every method may raise ``CannotRun``."""

    def about(self) -> About:
        """Return what heads its report, loading it if need be."""

    def check(self, clause: Clause) -> ClauseResult:
        """Check one clause."""

    def replay(self, clause: Clause, case: AnyCase) -> Replayed:
        """Put one case to the adapter."""

    def threads(self) -> int | None:
        """Return the threads that its framework computes with, where that is known."""

    def close(self) -> None:
        """Give back what the seat holds."""


class InProcess:
    """An adapter in this process: what it does to the process, it does to the run."""

    def __init__(self, load: Callable[[], Adapter], plan: Plan) -> None:
        self._load, self._plan = load, plan
        self._adapter: Adapter | None = None

    @property
    def adapter(self) -> Adapter:
        """The adapter, loaded when first asked for. Errors: ``CannotRun``."""
        if self._adapter is None:
            try:
                self._adapter = self._load()
            except (AdapterError, BackendMissing) as error:
                raise CannotRun(str(error)) from error
        return self._adapter

    def about(self) -> About:
        """Return what heads its report."""
        return about(self.adapter)

    def check(self, clause: Clause) -> ClauseResult:
        """Check one clause."""
        try:
            return check_clause(self.adapter, clause, self._plan)
        except BackendMissing as error:
            raise CannotRun(str(error)) from error

    def replay(self, clause: Clause, case: AnyCase) -> Replayed:
        """Put one case to the adapter."""
        try:
            return replay_case(self.adapter, clause, case)
        except BackendMissing as error:
            raise CannotRun(str(error)) from error

    def threads(self) -> int | None:
        """Return the threads that torch computes with, if it was imported."""
        return torch_threads()

    def close(self) -> None:
        """Have the adapter give back what it holds; what goes wrong there ends no run."""
        if self._adapter is None:
            return
        try:
            close(self._adapter)
        except (Exception, SystemExit) as error:
            words = f"moe-routing: {self._adapter.name}: close raised {in_words(error)}"
            print(words, file=sys.stderr)


def about(adapter: Adapter) -> About:
    """Return what heads an adapter's report."""
    package, installed = wrapped(adapter)
    return About(
        name=adapter.name,
        package=package,
        version=installed,
        capabilities=adapter.capabilities(),
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
    """Have an adapter give back what it holds, if it can."""
    if isinstance(adapter, Closes):
        adapter.close()


def torch_threads() -> int | None:
    """Return the threads that torch computes with in this process, if it was imported."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())

"""Jobs: clauses of several adapters, checked several at a time, each on a seat of its job.

One job checks on request, in the caller's thread. Several work ahead in threads of their own;
results are returned in the order in which they are requested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.run.seat import About, Seat


class Jobs:
    """The seats of a run, and the results in progress."""

    def __init__(
        self, seats: Mapping[str, Callable[[], Seat]], clauses: Sequence[Clause], count: int
    ) -> None:
        self._open, self._clauses = seats, clauses
        self._jobs = [_Job(seats) for _ in range(count)]
        self._free: SimpleQueue[_Job] = SimpleQueue()
        for job in self._jobs:
            self._free.put(job)
        self._pool = ThreadPoolExecutor(count) if count > 1 else None
        self._ahead: dict[tuple[str, str], Future[ClauseResult]] = {}
        self._abouts: dict[str, Future[About]] = {}

    def __enter__(self) -> Jobs:
        if self._pool is not None:
            for reference in self._open:
                self._abouts[reference] = self._pool.submit(self._about, reference)
                for clause in self._clauses:
                    future = self._pool.submit(self._check, reference, clause)
                    self._ahead[reference, clause.id] = future
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        futures: list[Future[Any]] = [*self._ahead.values(), *self._abouts.values()]
        for future in futures:
            future.cancel()
        for job in self._jobs:
            job.close()
        if self._pool is not None:
            self._pool.shutdown()

    def about(self, reference: str) -> About:
        """Return the head of an adapter's report. Errors: ``CannotRun``."""
        ahead = self._abouts.get(reference)
        return self._about(reference) if ahead is None else ahead.result()

    def result(self, reference: str, clause: Clause) -> ClauseResult:
        """Return the result of one clause on one adapter. Errors: ``CannotRun``."""
        ahead = self._ahead.get((reference, clause.id))
        return self._check(reference, clause) if ahead is None else ahead.result()

    def again(
        self, reference: str, clause: Clause, past: tuple[str, ...], *, shrinks: bool
    ) -> ClauseResult:
        """Check a clause again, past some edges. Errors: ``CannotRun``."""
        return self._check(reference, clause, past, shrinks)

    def threads(self, reference: str) -> int | None:
        """Return the threads that an adapter's framework computes with, where known."""
        return max((n for job in self._jobs if (n := job.threads.get(reference))), default=None)

    def forget(self, reference: str) -> None:
        """Cancel the checks of an adapter that have not started."""
        for (name, _), future in self._ahead.items():
            if name == reference:
                future.cancel()

    def _about(self, reference: str) -> About:
        job = self._free.get()
        try:
            return job.seat(reference).about()
        finally:
            self._free.put(job)

    def _check(
        self, reference: str, clause: Clause, past: tuple[str, ...] = (), shrinks: bool = True
    ) -> ClauseResult:
        job = self._free.get()
        try:
            return job.check(reference, clause, past, shrinks=shrinks)
        finally:
            self._free.put(job)


class _Job:
    """One seat at a time: that of the adapter that it is checking."""

    def __init__(self, seats: Mapping[str, Callable[[], Seat]]) -> None:
        self._open = seats
        self._reference: str | None = None
        self._seat: Seat | None = None
        self.threads: dict[str, int] = {}

    def seat(self, reference: str) -> Seat:
        """Return the seat of an adapter, closing the seat of another one."""
        if self._seat is None or self._reference != reference:
            self.close()
            self._seat, self._reference = self._open[reference](), reference
        return self._seat

    def check(
        self, reference: str, clause: Clause, past: tuple[str, ...], *, shrinks: bool
    ) -> ClauseResult:
        """Check one clause."""
        seat = self.seat(reference)
        result = seat.check(clause, past, shrinks=shrinks)
        if (threads := seat.threads()) is not None:
            self.threads[reference] = threads
        return result

    def close(self) -> None:
        """Close the seat that is open."""
        if self._seat is not None:
            self._seat.close()
            self._seat = None

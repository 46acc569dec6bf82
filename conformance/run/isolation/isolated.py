"""The isolated seat: requests to a worker, and verdicts of the workers that end in one."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.kinds import all_defined, facts_of, kind_of
from moe_routing.conformance.checking.answered import Answered
from moe_routing.conformance.checking.clause_run import with_widths
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.region_width import Width
from moe_routing.conformance.checking.replay import Replayed, standings
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.reducer import reduce_case
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.run.isolation.frames import Checked
from moe_routing.conformance.run.isolation.process import End, Ended, Process
from moe_routing.conformance.run.isolation.watch import Watch
from moe_routing.conformance.run.seat import About, CannotRun
from moe_routing.implementations import Capabilities

TRIES = 16
"""The most calls that one crash may cost to make its case smaller, each in a new process.

For each clause alone: what is found must not depend on how many clauses run at a time.
"""

FRESH = 3
"""The most new workers that one crash may cost, where calls cannot be made in forks.

Each pays for the adapter's imports once more: the third same crash ends the search.
"""


class Isolated:
    """An adapter in a worker process, which is started anew whenever it has ended."""

    def __init__(
        self,
        reference: str,
        plan: Plan,
        *,
        device: str = "cpu",
        watch: Watch | None = None,
        ranks: int | None = None,
        tries: int = TRIES,
    ) -> None:
        self._reference, self._device, self._ranks = reference, device, ranks
        self._plan = replace(plan, clauses=())  # clauses are sent by id
        self._threads: int | None = None
        self._watch, self._tries, self._spent = watch or Watch(), tries, 0
        self._closed, self._warms = False, ranks is None
        self._process: Process | None = None
        self._has_ended = False
        self._about: About | None = None

    def about(self) -> About:
        """Return what heads its report."""
        if self._about is None:
            self._started()
        assert self._about is not None, "a worker that has started has said what heads its report"
        return self._about

    def check(
        self, clause: Clause, past: tuple[str, ...] = (), *, shrinks: bool = True
    ) -> ClauseResult:
        """Check one clause; a worker that ends in it is the verdict ``crash`` or ``timeout``."""
        listed = self._plan.listed(self.about().name, clause)
        try:
            known = standings(listed, lambda case: self._witnessed(clause, case))
            checked: Checked = self._request("check", clause.id, known, past, shrinks)
        except Ended as ended:
            died = self._died(clause, ended.end, shrinks=shrinks)
            return replace(died, past=past)
        self._threads = checked.threads
        sticky = checked.result.status == "error" and self._device != "cpu"
        if checked.spoiled or sticky:  # a device may stay unusable after an error
            self._end_worker()
        if checked.result.status != "known":
            return checked.result
        return with_widths(checked.result, listed, lambda known: self._width(clause, known))

    def _width(self, clause: Clause, known: Divergence) -> Width:
        """Return the width of a region; one in which the worker dies is not too wide."""
        try:
            width: Width = self._request("width", clause.id, known.id)
            return width
        except Ended:
            return Width(checked=1, passed=0)

    def replay(self, clause: Clause, case: AnyCase) -> Replayed:
        """Run one case on the adapter."""
        try:
            replayed: Replayed = self._request("replay", clause.id, case)
            return replayed
        except Ended as ended:
            return _replayed(ended.end)

    def answer(self, case: Case) -> Answered:
        """Return the adapter's answer to a routing case; a worker that ends in it gave none."""
        try:
            answered: Answered = self._request("route", case)
            return answered
        except Ended as ended:
            return Answered(status=ended.end.status, message=ended.end.words)

    def _witnessed(self, clause: Clause, case: AnyCase) -> Replayed:
        """Replay a witness; if the worker was already dead, the result says nothing about it."""
        try:
            replayed: Replayed = self._request("replay", clause.id, case)
            return replayed
        except Ended as ended:
            if not ended.end.begun:
                raise
            return _replayed(ended.end)

    def threads(self) -> int | None:
        """Return the threads that its framework computes with, where that is known."""
        return self._threads

    def close(self) -> None:
        """End the worker, and start no other one."""
        self._closed = True
        self._end_worker()

    def _end_worker(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _request(self, name: str, *arguments: Any) -> Any:
        process = self._started()
        try:
            return process.request(name, *arguments)
        except Ended:
            self._has_ended = True
            if not process.idle:
                self._end_worker()
            raise

    def _started(self) -> Process:
        """Return the worker, with the adapter loaded. Errors: ``CannotRun``.

        One that takes the place of one that has ended answers in forks, where that is safe.
        """
        if self._process is None:
            began = time.perf_counter()
            self._process = self._loaded()
            if self._warms:
                self._warm(self._process)
            if self._process is None:
                self._process = self._loaded()
            if self._has_ended:
                self._process.request("fork")
            self._about = self._about_with(time.perf_counter() - began)
        return self._process

    def _warm(self, process: Process) -> None:
        """Have the first worker make a first call; what it does there is for a clause to find."""
        self._warms = False
        try:
            spoilt: bool = process.request("warm")
        except Ended:
            self._has_ended = spoilt = True
        if spoilt:
            self._end_worker()

    def _about_with(self, seconds: float) -> About | None:
        """Return what heads its report, with what the first start took."""
        about = self._about
        first = about is not None and about.start_seconds is None
        return replace(about, start_seconds=seconds) if about is not None and first else about

    def _loaded(self) -> Process:
        """Start a worker and load the adapter in it. Errors: ``CannotRun``."""
        process = Process(self._watch, lambda: self._closed)
        try:
            about = process.request(
                "load",
                sys.path,
                str(process.journal),
                self._reference,
                self._device,
                self._plan,
                (self._ranks, self._watch.call_seconds),
            )
        except Ended as ended:
            process.close()
            words = f"{self._reference}: {ended.end.how} while it was loaded"
            raise CannotRun(_with_place(words, ended.end), ended.end.status) from None
        except BaseException:
            process.close()
            raise
        self._about = self._about or about
        return process

    def _died(self, clause: Clause, end: End, *, shrinks: bool) -> ClauseResult:
        case, words = end.case, end.words
        if case is not None and end.status == "crash" and shrinks:
            with suppress(CannotRun):  # the crash stays, and the next clause reports the reason
                case, words = self._alone(clause, end, case)
        return ClauseResult(
            id=clause.id,
            level=clause.level,
            chapter=clause.chapter,
            status=end.status,
            message=words,
            failure=Failure(stage="call", summary=words, details=end.where),
            case=case,
        )

    def _alone(self, clause: Clause, end: End, case: AnyCase) -> tuple[AnyCase, str]:
        """Make the case of a crash smaller, in new processes; note if it does not crash alone."""
        self._spent = 0
        if not self._dies_alone(clause, case):
            return case, f"{end.words}; the call alone does not reproduce it"
        reductions = kind_of(case).reductions
        dies = partial(self._dies_alone, clause)
        small = reduce_case(case, reductions, dies, preferred=_is_defined, budget=self._tries)
        return small, end.words

    def _dies_alone(self, clause: Clause, case: AnyCase) -> bool:
        """Return whether a process that has made no call before dies in this one.

        That is a fork of the worker, or the worker itself, which has been started anew; not
        once that has been done too often.
        """
        if self._spent >= FRESH:
            return False
        try:
            died: bool | None = self._started().request("alone", clause.id, case)
        except Ended as ended:
            died = ended.end.status == "crash"
            self._renew()
        if died is None:  # it could not fork, and has made a call now
            self._renew()
        return bool(died)

    def _renew(self) -> None:
        self._end_worker()
        self._spent += 1


def _with_place(words: str, end: End) -> str:
    """Add to ``words`` what a worker said last, and the innermost line of source, if known."""
    return ": ".join([words, "; ".join(end.where[:2])]) if end.where else words


def _replayed(end: End) -> Replayed:
    """Return the result of a case in which the worker ended."""
    return Replayed(status=end.status, message=end.words, details=end.where)


def _is_defined(case: AnyCase) -> bool:
    """Return whether the answer to each token of a case is defined, whatever is claimed."""
    return all_defined(case, facts_of(case, Capabilities()))

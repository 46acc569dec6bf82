"""The isolated seat: requests to a worker, and verdicts of the workers that end in one."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.checking.clause_run import with_widths
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.region_width import Width
from moe_routing.conformance.checking.replay import Replayed, still_breaking
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import Clause
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.reducer import reduce_case
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.run.isolation.frames import Checked
from moe_routing.conformance.run.isolation.process import End, Ended, Process
from moe_routing.conformance.run.isolation.watch import Watch
from moe_routing.conformance.run.seat import About, CannotRun

TRIES = 16
"""The most fresh workers that one crash may cost to make its case smaller."""


class Isolated:
    """An adapter in a worker process, which is started anew whenever it has ended."""

    def __init__(
        self,
        reference: str,
        plan: Plan,
        *,
        device: str = "cpu",
        watch: Watch | None = None,
        tries: int = TRIES,
    ) -> None:
        self._reference, self._device = reference, device
        self._plan = replace(plan, clauses=())  # clauses go by their ids
        self._threads: int | None = None
        self._watch, self._tries = watch or Watch(), tries
        self._closed = False
        self._process: Process | None = None
        self._about: About | None = None

    def about(self) -> About:
        """Return what heads its report."""
        if self._about is None:
            self._started()
        return self._about

    def check(self, clause: Clause) -> ClauseResult:
        """Check one clause; a worker that ends in it is the verdict ``crash`` or ``timeout``."""
        listed = self._plan.listed(self.about().name, clause)
        try:
            breaks = still_breaking(listed, lambda case: self._witnessed(clause, case))
            checked: Checked = self._ask("check", clause.id, breaks)
        except Ended as ended:
            return self._died(clause, ended.end)
        self._threads = checked.threads
        sticky = checked.result.status == "error" and self._device != "cpu"
        if checked.spoiled or sticky:  # a device may stay unusable after an error
            self._end_worker()
        if checked.result.status != "known":
            return checked.result
        return with_widths(checked.result, {each: self._width(clause, each) for each in listed})

    def _width(self, clause: Clause, known: Divergence) -> Width:
        """Ask for the width of a region; one in which the worker ends excuses that."""
        try:
            return self._ask("width", clause.id, known.id)
        except Ended:
            return Width(asked=1, passed=0)

    def replay(self, clause: Clause, case: AnyCase) -> Replayed:
        """Put one case to the adapter."""
        try:
            return self._ask("replay", clause.id, case)
        except Ended as ended:
            return _replayed(ended.end)

    def _witnessed(self, clause: Clause, case: AnyCase) -> Replayed:
        """Replay a witness, of which a worker that had ended before says nothing."""
        try:
            return self._ask("replay", clause.id, case)
        except Ended as ended:
            if not ended.end.begun:
                raise
            return _replayed(ended.end)

    def threads(self) -> int | None:
        """Return the threads that its framework computes with, where that is known."""
        return self._threads

    def close(self) -> None:
        """End the worker, and start no other."""
        self._closed = True
        self._end_worker()

    def _end_worker(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _ask(self, name: str, *arguments: Any) -> Any:
        try:
            return self._started().ask(name, *arguments)
        except Ended:
            self._end_worker()
            raise

    def _started(self) -> Process:
        """Return the worker, with the adapter loaded. Errors: ``CannotRun``."""
        if self._process is None:
            process = Process(self._watch, lambda: self._closed)
            try:
                self._about = process.ask(
                    "load",
                    sys.path,
                    str(process.journal),
                    self._reference,
                    self._device,
                    self._plan,
                )
            except Ended as ended:
                process.close()
                words = f"{self._reference}: {ended.end.how} while it was loaded"
                raise CannotRun(_with_place(words, ended.end), ended.end.status) from None
            except BaseException:
                process.close()
                raise
            self._process = process
        return self._process

    def _died(self, clause: Clause, end: End) -> ClauseResult:
        case, words = end.case, end.words
        if case is not None and end.status == "crash":
            with suppress(CannotRun):  # what was found stays, and the next clause tells why
                case, words = self._alone(clause, case, words)
        return ClauseResult(
            id=clause.id,
            level=clause.level,
            chapter=clause.chapter,
            status=end.status,
            message=words,
            failure=Failure(stage="call", summary=words, details=end.where),
            case=case,
        )

    def _alone(self, clause: Clause, case: AnyCase, words: str) -> tuple[AnyCase, str]:
        """Put the case of a crash to fresh workers: make it smaller, or say that none ends."""
        if not self._dies_alone(clause, case):
            return case, f"{words}; the call alone does not reproduce it"
        reductions = kind_of(case).reductions
        dies = partial(self._dies_alone, clause)
        return reduce_case(case, reductions, dies, budget=self._tries), words

    def _dies_alone(self, clause: Clause, case: AnyCase) -> bool:
        """Tell whether a fresh worker ends when it is asked about one case."""
        self._end_worker()
        try:
            self._ask("alone", clause.id, case)
        except Ended as ended:
            return ended.end.status == "crash"
        return False


def _with_place(words: str, end: End) -> str:
    """Add to ``words`` what a worker said last, and the innermost line of source, if known."""
    return ": ".join([words, "; ".join(end.where[:2])]) if end.where else words


def _replayed(end: End) -> Replayed:
    """Return what came of a case in which the worker ended."""
    return Replayed(status=end.status, message=end.words, details=end.where)

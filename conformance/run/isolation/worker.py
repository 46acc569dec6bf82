"""The worker: the process in which one adapter is loaded and checked.

It reads requests from its standard input and answers on its standard output, both of which
are moved out of the adapter's reach first: what the adapter prints goes to the worker's log.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from moe_routing.conformance.checking.answered import Answered, answer_case
from moe_routing.conformance.checking.clause_run import search_clause
from moe_routing.conformance.checking.region_width import Width, width
from moe_routing.conformance.checking.replay import Standing, replay_case
from moe_routing.conformance.checking.target import Target
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.run.isolation import state
from moe_routing.conformance.run.isolation.forks import in_a_fork, threads_running
from moe_routing.conformance.run.isolation.frames import Checked, receive, send
from moe_routing.conformance.run.isolation.heap import keep_freed_memory
from moe_routing.conformance.run.isolation.journal import Journal
from moe_routing.conformance.run.isolation.warm import first_call
from moe_routing.conformance.run.seat import about, close, loaded, torch_threads
from moe_routing.conformance.trial import noted
from moe_routing.implementations import Adapter, AdapterError, BackendMissing, Closes


def main() -> None:
    """Serve requests until the other side ends."""
    requests, answers = _own_pipes()
    faulthandler.enable()
    _be_killed_first()
    keep_freed_memory()
    server = _Server(answers)
    for request in _arriving(requests):
        server.serve(*request)


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipes of the run, and leave the adapter an empty input and the log."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers


def _be_killed_first() -> None:
    """Let the system kill this process, not the run, if memory runs out."""
    with suppress(OSError):  # not every system has this file, or allows a change
        Path("/proc/self/oom_score_adj").write_text("1000")


def _arriving(pipe: BinaryIO) -> Iterator[tuple[Any, ...]]:
    """Yield requests as they come; end the process at once if the run has ended."""
    queue: SimpleQueue[Any] = SimpleQueue()

    def read() -> None:
        while True:
            try:
                queue.put(receive(pipe))
            except EOFError:
                _end()

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield queue.get()


def _end() -> None:
    """End this process, and what the adapter has started, since no run is left to do it."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


_FORKED = ("check", "replay", "route", "width")
"""The requests in which the adapter is called."""


class _Server:
    """The adapter of this process, and the requests about it."""

    _adapter: Adapter | None = None
    _can_fork = False
    _forks = False

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._before = state.current()
        self._journal: Journal
        self._device = "cpu"

    def serve(self, name: str, *arguments: Any) -> None:
        """Answer one request: ``("answer", value)`` or ``("refused", why)``.

        Any other exception ends the process, which is a verdict; where that is a fork of the
        worker, which stays as it is, the answer is ``("died", code)``.
        """
        if self._forks and name in _FORKED:
            self._journal.skip()
            send_it = partial(send, self._answers)
            code = in_a_fork(partial(self._answer, name, *arguments), send_it)
            if code is not None:
                send(self._answers, ("died", code))
        else:
            send(self._answers, self._answer(name, *arguments))

    def _answer(self, name: str, *arguments: Any) -> tuple[str, Any]:
        try:
            return "answer", getattr(self, f"_{name}")(*arguments)
        except (AdapterError, BackendMissing) as error:
            return "refused", " ".join(str(error).split())

    @property
    def adapter(self) -> Adapter:
        """The adapter, which is loaded before anything else is requested."""
        assert self._adapter is not None
        return self._adapter

    def _load(
        self, path: list[str], journal: str, reference: str, device: str, plan: Any, ranks: Any
    ) -> Any:
        sys.path[:] = path
        self._journal = Journal(Path(journal))
        noted.record_in(self._journal)
        self._plan, self._device = plan, device
        threads = threads_running()
        self._adapter = loaded(reference, device, *ranks)
        shared = isinstance(self._adapter, Closes) or device != "cpu"
        self._can_fork = not shared and threads is not None and threads == threads_running()
        return about(self._adapter)

    def _warm(self) -> bool:
        """Make a first call, which pays for imports that come late; return whether it spoils.

        What is there then stays: no collection of garbage looks through it again.
        """
        self._journal.cleared()
        _outlived(partial(first_call, self.adapter))
        gc.freeze()
        return bool(state.restore(self._before))

    def _fork(self) -> None:
        """From now on, answer each request about the adapter in a fork, if that is safe."""
        self._forks = self._can_fork

    def _close(self) -> None:
        close(self._adapter)

    def _check(
        self, clause: str, known: dict[str, Standing], past: tuple[str, ...], shrinks: bool
    ) -> Checked:
        self._journal.cleared()
        plan = replace(self._plan, past=past, shrinks=shrinks)
        result = search_clause(self.adapter, CLAUSES[clause], plan, known)
        replaced = state.restore(self._before)
        if replaced:
            result = replace(result, status="error", message=_spoiled(replaced), failure=None)
        return Checked(result=result, spoiled=bool(replaced), threads=torch_threads())

    def _replay(self, clause: str, case: Any) -> Any:
        self._journal.cleared()
        return replay_case(self.adapter, CLAUSES[clause], case, repeats=self._plan.repeats)

    def _route(self, case: Any) -> Answered:
        self._journal.cleared()
        return answer_case(self.adapter, case)

    def _width(self, clause: str, id: str) -> Width:
        self._journal.cleared()
        (known,) = (each for each in self._plan.known if each.id == id)
        return width(self.adapter, CLAUSES[clause], self._plan, known)

    def _alone(self, clause: str, case: Any) -> bool | None:
        """Make one call in a fork of this process, and return whether the fork died.

        Without a fork the call is made here, and None returned: where a device may be in use, or
        where the adapter holds what two processes cannot share.
        """
        self._journal.cleared()
        target = Target(self.adapter, CLAUSES[clause], self._plan)
        call = partial(_outlived, partial(target.evaluate_if_due, target.trial(case)))
        if not self._can_fork:
            call()
            return None
        self._journal.skip()
        return in_a_fork(call) is not None


def _outlived(call: Callable[[], object]) -> None:
    """Make a call: whatever it raises, the process has outlived it."""
    with suppress(BaseException):
        call()


def _spoiled(replaced: list[str]) -> str:
    names = ", ".join(replaced[:3])
    return f"replaced {names}: nothing that was judged in its process can be trusted"


if __name__ == "__main__":
    main()

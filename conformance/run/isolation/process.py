"""A worker process: started, sent requests, watched, and, once it ended, the reason why."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.run.isolation import frames
from moe_routing.conformance.run.isolation.journal import read_entry, read_mark
from moe_routing.conformance.run.isolation.start import start
from moe_routing.conformance.run.isolation.watch import Memory, Watch
from moe_routing.conformance.run.seat import CannotRun
from moe_routing.implementations.loading import own_name
from moe_routing.implementations.patience import Patience
from moe_routing.implementations.traces import shown

_POLL = 0.1
_GRACE = 2.0  # seconds in which an adapter may release what it holds
_FRAME = re.compile(r'^  File "(.+)", line (\d+),? in (\S+)$', re.MULTILINE)
_FRAMES = 4
_FAULT = "(most recent call first):"
_TAIL = 2**16
_SPACE = 2**16  # bytes that a worker needs for a start: a case, and a traceback
_SUITE = str(Path(__file__).parents[2])


class Ended(Exception):
    """The worker has ended in the middle of a request."""

    def __init__(self, end: End) -> None:
        super().__init__(end.words)
        self.end = end


@dataclass(frozen=True, kw_only=True)
class End:
    """How a worker ended: a status, ``how`` and in which ``place``, with the last call's case.

    ``where`` are the innermost lines of source, where they are known; ``begun`` says whether
    the worker had begun with the request, rather than died or hung before it.
    """

    status: Status
    how: str
    place: str
    case: AnyCase | None
    where: tuple[str, ...] = ()
    begun: bool = True

    @property
    def words(self) -> str:
        """How and where, in one line."""
        return f"{self.how} {self.place}"


class Stopped(Exception):
    """The run was stopped: no more workers."""


def _environment(threads: int | None) -> dict[str, str]:
    """Return the environment of a worker whose frameworks start so many threads."""
    few = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**os.environ, **few}


def _new_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder with space for the journal and the log of a worker. Errors: ``CannotRun``."""
    with ExitStack() as undone:
        try:
            folder = tempfile.TemporaryDirectory(prefix="moe-routing-")
            undone.callback(folder.cleanup)
            (Path(folder.name) / "log").write_bytes(bytes(_SPACE))
        except OSError as error:
            where = f"the temporary folder {tempfile.gettempdir()}"
            fix = "make space there, or name another one in TMPDIR"
            raise CannotRun(f"Cannot write to {where}: {error.strerror}; {fix}") from error
        undone.pop_all()
    return folder


class Process:
    """One worker process. Errors of every request: ``Ended``, ``CannotRun``."""

    def __init__(self, watch: Watch, stopped: Callable[[], bool] = lambda: False) -> None:
        self._watch, self._stopped = watch, stopped
        self._folder = _new_folder()
        self.journal = Path(self._folder.name) / "journal"
        self._log = Path(self._folder.name) / "log"
        with self._log.open("wb") as log:
            self._worker = start(log, _environment(watch.threads))
        self._requests, self._replies = self._worker.requests, self._worker.replies
        self._memory = Memory(self._worker.pid)
        self._idle, self._mark_before = True, b""
        self._answers: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def request(self, name: str, *arguments: Any) -> Any:
        """Make a request and return its answer."""
        if self._stopped():
            raise Stopped
        self._idle, self._mark_before = False, self._mark()
        said = self._log.stat().st_size
        try:
            frames.send(self._requests, (name, *arguments))
        except (OSError, ValueError):  # it has ended, or was closed
            raise Ended(self._ended()) from None
        kind, value = self._wait()
        if self._stopped():
            raise Stopped
        if kind == "unreadable":
            raise Ended(self._killed("error", f"sent an answer that cannot be read ({value})"))
        if kind not in ("answer", "refused", "died"):
            raise Ended(self._ended())
        self._idle = True
        if kind == "died":
            raise Ended(self._died(value, said))
        if kind == "refused":
            raise CannotRun(value)
        return value

    @property
    def idle(self) -> bool:
        """Whether it waits for a request, also after one in which a fork of it has ended."""
        return self._idle

    def close(self) -> None:
        """End the worker, whatever it is doing, and what it has started."""
        with self._folder:  # removed even if ending the worker fails
            try:
                if self._idle:
                    self._release()
            finally:
                self._worker.kill()
                with suppress(OSError):  # what was not sent when it ended
                    self._requests.close()
                self._worker.close()

    def _release(self) -> None:
        """Let the adapter release what it holds, if its worker still can."""
        with suppress(Empty, OSError, ValueError):
            frames.send(self._requests, ("close",))
            self._answers.get(timeout=_GRACE)

    def _read(self) -> None:
        while True:
            try:
                self._answers.put(frames.receive(self._replies))
            except frames.Unreadable as error:
                self._answers.put(("unreadable", own_name(str(error))))
                return
            except Exception:  # the end: either way it is over
                self._answers.put(("ended", None))
                return

    def _wait(self) -> tuple[str, Any]:
        """Return the answer, watching the worker while it works."""
        mark, patience = self._mark(), Patience(self._worker.pid)
        while True:
            try:
                return self._answers.get(timeout=_POLL)
            except Empty:
                now = self._mark()
            if self._stopped():
                raise Stopped
            if now != mark:
                mark, patience = now, Patience(self._worker.pid)
            self._check_time(mark, patience)
            self._check_memory()

    def _mark(self) -> bytes:
        return read_mark(self.journal) if self.journal.exists() else b""

    def _check_time(self, mark: bytes, patience: Patience) -> None:
        in_call = mark.startswith(b"c")
        limit = self._watch.call_seconds if in_call else self._watch.idle_seconds
        if patience.exceeds(limit):
            raise Ended(self._killed("timeout", f"no answer after {limit:g} s"))

    def _check_memory(self) -> None:
        limit = self._watch.memory
        if limit is not None and self._memory.exceeds(limit):
            raise Ended(self._killed("crash", f"took more than {limit / 2**30:.3g} GiB of memory"))

    def _killed(self, status: Status, how: str) -> End:
        self._worker.kill()
        return self._end(status, how)

    def _ended(self) -> End:
        """Return how the worker ended by itself."""
        return self._died(self._worker.ended(), 0)

    def _died(self, code: int, said: int) -> End:
        """Say how a process ended, by its code and by what the log has from ``said`` on."""
        how = f"killed by {_signal(-code)}" if code < 0 else f"exited with code {code}"
        return self._end("crash", how, _where(self._log.read_bytes()[said:][-_TAIL:]))

    def _end(self, status: Status, how: str, where: tuple[str, ...] = ()) -> End:
        begun = self._mark() != self._mark_before  # else the journal is of an earlier request
        entry = read_entry(self.journal) if begun and self.journal.exists() else None
        places = {"c": "in a call", "r": "after a call"}
        return End(
            status=status,
            how=how,
            place=places.get(entry.state if entry else "", "before any call"),
            case=entry.case if entry else None,
            where=where,
            begun=begun,
        )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _where(log: bytes) -> tuple[str, ...]:
    """Return where the worker ended, innermost first: as the fault handler or Python wrote it."""
    text = log.decode(errors="replace")
    if _FAULT in text:
        said, _, trace = text.rpartition(_FAULT)
        return (*_last_words(said), *_outside(_FRAME.findall(trace)))
    _, raised, trace = text.rpartition("Traceback (most recent call last):\n")
    last = [own_name(line) for line in trace.strip().splitlines()[-1:]] if raised else []
    return (*last, *_outside(_FRAME.findall(trace)[::-1]))


def _last_words(said: str) -> tuple[str, ...]:
    """Return the worker's last words before its fault: a message of an allocator or an assert."""
    lines = said.rpartition("Fatal Python error: ")[0].split("\n")
    last = [line.strip() for line in lines if line.strip()][-1:]
    return tuple(f"it last wrote {line[:200]!r}" for line in last)


def _outside(frames_: list[tuple[str, str, str]]) -> tuple[str, ...]:
    """Format the innermost frames, down to the first of the suite's own."""
    backend = takewhile(lambda frame: not frame[0].startswith(_SUITE), frames_)
    return tuple(f"{shown(path)}:{line} in {name}" for path, line, name in islice(backend, _FRAMES))

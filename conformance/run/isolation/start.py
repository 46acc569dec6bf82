"""Starting workers: as forks of a process that has the imports, or as new processes."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import IO, Protocol

_PACKAGE = __name__.rpartition(".")[0]
_CHANGES = "PYTEST_CURRENT_TEST"  # with every test, and no business of a worker's
_PATIENCE = 60.0  # seconds for the imports of a starter, and a fork


def start(log: IO[bytes], environment: Mapping[str, str]) -> Worker:
    """Start a worker: on Linux as a fork, while there is a process to fork from."""
    if _forks():
        with suppress(OSError):
            return Forked(_STARTERS.get(environment), log)
        _STARTERS.drop()
    return Fresh(log, environment)


def _forks() -> bool:
    """Return whether this system can: elsewhere libraries that were imported may not be forked."""
    return sys.platform == "linux"


class Worker(Protocol):
    """A worker process as the run sees it: its number, its pipes, and its end.

    The number is in use until ``close``, so that what is killed by it is the worker's.
    """

    pid: int
    requests: IO[bytes]
    replies: IO[bytes]

    def kill(self) -> None:
        """Kill every process of the worker's session, so that no backend of its own stays."""

    def ended(self) -> int:
        """Wait until the worker has ended, kill what it had started, and return its code."""

    def close(self) -> None:
        """Let go of a worker that has ended."""


class Fresh:
    """A worker in a new process, which pays for its imports."""

    def __init__(self, log: IO[bytes], environment: Mapping[str, str]) -> None:
        self._popen = subprocess.Popen(
            _command("worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,  # an interrupt is for the run, which ends its workers
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self.requests, self.replies = self._popen.stdin, self._popen.stdout
        self.pid = self._popen.pid

    def kill(self) -> None:
        """Kill its session."""
        if self._popen.returncode is None:
            _kill_session(self.pid)
        self._popen.kill()
        self._popen.wait()

    def ended(self) -> int:
        """Wait for its end, and return its code."""
        if self._popen.returncode is None and hasattr(os, "waitid"):  # its number is still its own
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            _kill_session(self.pid)
        return self._popen.wait()

    def close(self) -> None:
        """Do nothing: who waits for a process has let go of it."""


class Forked:
    """A worker that a starter forks, and a guard reports on. Errors: ``OSError`` if it cannot."""

    def __init__(self, starter: Starter, log: IO[bytes]) -> None:
        self._code: int | None = None
        self._waiting = threading.Lock()
        with ExitStack() as kept, ExitStack() as sent:
            line, guard = socket.socketpair()
            kept.enter_context(line)
            sent.enter_context(guard)
            inward, self.requests = _pipe("wb", kept, sent)
            outward, self.replies = _pipe("rb", kept, sent)
            folder = os.open(".", os.O_PATH)
            sent.callback(os.close, folder)
            starter.send(inward, outward, log.fileno(), folder, guard.fileno())
            sent.close()
            self._guard = kept.enter_context(line.makefile("rb"))
            line.settimeout(_PATIENCE)
            self.pid = self._number()
            line.settimeout(None)
            self._kept = kept.pop_all()

    def kill(self) -> None:
        """Kill its session."""
        if self._code is None:
            _kill_session(self.pid)
        self.ended()

    def ended(self) -> int:
        """Wait for its end, and return its code."""
        with self._waiting:
            if self._code is None:
                with suppress(OSError):
                    self._code = self._number()
                _kill_session(self.pid)
            return -signal.SIGKILL if self._code is None else self._code

    def close(self) -> None:
        """Let its guard end, and with it the number."""
        self._guard.close()

    def _number(self) -> int:
        """Read what the worker said of its start, or its guard of its end."""
        line = self._guard.readline()
        if not line:
            raise ConnectionResetError("nothing is left of the starter, or of the guard")
        return int(line)


def _pipe(mode: str, kept: ExitStack, sent: ExitStack) -> tuple[int, IO[bytes]]:
    """Return the worker's end of a new pipe, and the run's, which is opened in ``mode``."""
    reads, writes = os.pipe()
    theirs, ours = (reads, writes) if mode == "wb" else (writes, reads)
    sent.callback(os.close, theirs)
    return theirs, kept.enter_context(os.fdopen(ours, mode))


class Starter:
    """A process that forks workers, of one environment and for one process that runs them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment, self._owner = environment, os.getpid()
        self._sending = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                _command("starter"),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what fails here fails in a new process, which says it
                env=environment,
                start_new_session=True,
            )

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Return whether its forks are what new processes of this one would be."""
        return self._owner == os.getpid() and self._environment == environment

    def send(self, *pipes: int) -> None:
        """Have a worker forked that takes these. Errors: ``OSError`` if the starter has ended."""
        with self._sending:
            socket.send_fds(self._socket, [b"w"], pipes)

    def close(self) -> None:
        """End it; its workers stay."""
        self._socket.close()
        if self._owner == os.getpid():
            self._popen.wait()


class _Starters:
    """The one starter that is kept, for the environment in which workers were started last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: Starter | None = None

    def get(self, environment: Mapping[str, str]) -> Starter:
        """Return the starter of an environment, started now if it is another's."""
        wanted = {name: value for name, value in environment.items() if name != _CHANGES}
        with self._lock:
            if self._kept is None or not self._kept.serves(wanted):
                self._drop()
                self._kept = Starter(wanted)
            return self._kept

    def drop(self) -> None:
        """End the starter."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()


_STARTERS = _Starters()
atexit.register(_STARTERS.drop)


def _command(module: str) -> list[str]:
    return [sys.executable, "-P", "-m", f"{_PACKAGE}.{module}"]


def _kill_session(leader: int) -> None:
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)

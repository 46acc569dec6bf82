"""A backend's process: started, spoken with, started again once it has ended."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any, TypeVar

from moe_routing.implementations import wire
from moe_routing.implementations.protocol import BackendLost, BackendMissing

Answer = TypeVar("Answer")

_TAIL = 2**12
_PATIENCE = 5.0  # seconds in which a process that closed its output has to end


class Conversation:
    """Requests to the process that ``command`` starts, and its replies; ``hello`` was its first.

    A process that has ended is restarted for the next request. Errors: ``BackendMissing`` where
    the command cannot be started, ``BackendLost`` where it does not say hello.
    """

    hello: wire.Hello

    def __init__(self, command: Sequence[str], device: str = "cpu") -> None:
        if isinstance(command, str) or not command:
            raise ValueError(
                f"Expected command to be a list of words but got {command!r}: write "
                f"['./router', '--fast'], for example"
            )
        self.command, self.device = list(command), device
        self._running: Running | None = None
        self._start()

    def answered(self, request: dict[str, Any], read: Callable[[dict[str, Any]], Answer]) -> Answer:
        """Send a request, and read the reply. Errors: ``wire.BackendError``, ``BackendLost``."""
        running = self._running or self._start()
        reply = self._heard(running, request)
        try:
            return read(reply)
        except wire.ProtocolError as error:
            raise self._lost(running, f"{self.command[0]} {error}") from error

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _start(self) -> Running:
        running = self._running = Running(self.command)
        reply = self._heard(running, wire.hello_request(self.device))
        try:
            self.hello = wire.read_hello(reply)
        except (wire.BackendError, wire.ProtocolError) as error:
            raise self._lost(running, f"{self.command[0]} {error}") from error
        return running

    def _heard(self, running: Running, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return running.reply_to(request)
        except wire.ProtocolError as error:
            raise self._lost(running, f"{self.command[0]} {error}") from error
        except EOFError as error:
            words = f"{self.command[0]} {running.end()}"
            raise self._lost(running, words, "crash") from error

    def _lost(self, running: Running, words: str, status: Any = "error") -> BackendLost:
        """End the process, since nothing that it writes next can be trusted, and return why."""
        self.close()
        last = running.last_words()
        return BackendLost(f"{words}; it last wrote {last!r}" if last else words, status)


class Running:
    """A process that has been started: requests in, replies out, and how it ended."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._sent = 0
        try:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            self._errors.close()
            raise BackendMissing(f"Cannot start {command[0]}: {error.strerror}") from error
        self._stdin, self._stdout = _pipes(self._popen)
        self.close = weakref.finalize(self, _close, self._popen)

    def reply_to(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply. Errors: ``EOFError`` where none came, ``wire.ProtocolError``."""
        self._sent += 1
        try:
            self._stdin.write(wire.written({"id": self._sent, **request}))
            self._stdin.flush()
        except OSError as error:
            raise EOFError from error
        line = self._stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return wire.read(line, self._sent)

    def end(self) -> str:
        """Return how a process that has closed its output ended."""
        try:
            code = self._popen.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return "closed its output but is still running"
        if code >= 0:
            return f"exited with code {code}"
        with suppress(ValueError):  # not every signal has a name
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"

    def last_words(self) -> str:
        """Return the last line that the process wrote to its standard error."""
        self._errors.seek(0, 2)
        self._errors.seek(max(0, self._errors.tell() - _TAIL))
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


def _pipes(popen: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Return what a process reads and what it writes, both started as pipes."""
    assert popen.stdin is not None
    assert popen.stdout is not None
    return popen.stdin, popen.stdout


def _close(popen: subprocess.Popen[bytes]) -> None:
    """End a process, and wait for it, so that none is left behind."""
    popen.kill()
    popen.wait()
    for pipe in _pipes(popen):
        with suppress(OSError):  # what was not written when it ended
            pipe.close()

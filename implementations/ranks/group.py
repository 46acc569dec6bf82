"""The group: hosts and their ranks, one round of calls at a time, and what becomes of each rank."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from moe_routing.implementations.loading import AdapterError
from moe_routing.implementations.patience import Patience
from moe_routing.implementations.protocol import BackendLost, BackendMissing
from moe_routing.implementations.ranks.distributed import Meeting

_GRACE = 0.5  # seconds that the others have once a rank has died or raised
_LOAD = 300.0  # seconds in which a host may load its adapter
_LOOK = 0.1  # seconds between two looks at the time that the ranks have had


class HostLost(BackendLost):
    """A process that holds ranks has ended, and they with it."""

    def __init__(self) -> None:
        super().__init__("the process that holds the ranks has ended", "crash", costly=True)


@dataclass(frozen=True)
class Remote:
    """A host: the connection to it, the numbers of its ranks, and how it is ended."""

    pipe: Connection
    ranks: Sequence[int]


@dataclass
class Round:
    """What has become of a round of calls: by rank, a kind (``answer``, ``died`` ...) and a value.

    ``late`` says that the time was up.
    """

    size: int
    said: dict[int, tuple[str, Any]] = field(default_factory=dict)
    late: bool = False

    @property
    def silent(self) -> list[int]:
        """The ranks that have said nothing."""
        return [rank for rank in range(self.size) if rank not in self.said]

    def of(self, kind: str) -> dict[int, Any]:
        """Return what ranks said of one kind."""
        return {rank: value for rank, (each, value) in sorted(self.said.items()) if each == kind}


class Group:
    """The ranks of one adapter, started when they are first called, and again after a loss.

    ``seconds`` is what one round of calls may take.
    """

    def __init__(self, hosts: Sequence[Remote], size: int, seconds: float, meet: Any) -> None:
        self._hosts, self._size, self._seconds, self._meet = hosts, size, seconds, meet
        self._running = False

    def load(self, reference: str, device: str) -> tuple[Any, ...]:
        """Load the adapter on every host, and return its head. Errors: as ``load_adapter``."""
        for host in self._hosts:
            _send(host.pipe, ("load", sys.path, reference, device))
        heads = [self._head(host, reference) for host in self._hosts]
        return heads[0]

    def _head(self, host: Remote, reference: str) -> tuple[Any, ...]:
        if not host.pipe.poll(_LOAD):
            raise AdapterError(f"{reference} was not loaded after {_LOAD:g} s")
        try:
            kind, *head = host.pipe.recv()
        except (EOFError, OSError) as error:
            raise AdapterError(f"{reference}: its process ended while it was loaded") from error
        if kind == "refused":
            raise (BackendMissing if head[0] == "BackendMissing" else AdapterError)(head[1])
        return tuple(head)

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> Round:
        """Call a method on every rank at once, with the arguments of each."""
        if not self._running:
            started = self._started()
            if len(started.of("ready")) < self._size:
                return started
        for host in self._hosts:
            _send(host.pipe, ("call", {rank: (method, arguments[rank]) for rank in host.ranks}))
        return self._heard()

    def _started(self) -> Round:
        meeting = self._meet()
        for host in self._hosts:
            _send(host.pipe, ("start", list(host.ranks), self._size, meeting))
        self._running = True
        return self._heard()

    def _heard(self) -> Round:
        """Hear every rank once, until the time is up, or until one has died or raised."""
        heard, patience, until = Round(self._size), Patience(os.getsid(0)), math.inf
        pipes = [host.pipe for host in self._hosts]
        while heard.silent:
            if not (ready := wait(pipes, min(_LOOK, max(0.0, until - time.monotonic())))):
                if time.monotonic() < until and not patience.exceeds(self._seconds):
                    continue
                heard.late = not heard.of("died") and not heard.of("raised")
                break
            for pipe in ready:
                rank, kind, value = _received(pipe)
                if rank not in heard.said or (kind == "died" and heard.said[rank][0] != "missing"):
                    heard.said[rank] = kind, value
                if kind in ("died", "raised", "missing"):
                    until = min(until, time.monotonic() + _GRACE)
        return heard

    def places(self) -> dict[int, str]:
        """End all ranks, and return where each of them was."""
        found: dict[int, str] = {}
        for host in self._hosts:
            _send(host.pipe, ("stop", True))
        for host in self._hosts:
            found |= self._place(host)
        self._running = False
        return found

    def _place(self, host: Remote) -> dict[int, str]:
        """Return what a host says of its ranks, past what these had said before."""
        while True:
            said = _received(host.pipe)
            if isinstance(said, dict):
                return said

    def stop(self) -> None:
        """End all ranks; the next call starts others."""
        _ = self.places()


def _send(pipe: Any, message: Any) -> None:
    """Send a host something. Errors: ``HostLost`` where it has ended."""
    try:
        pipe.send(message)
    except OSError as error:
        raise HostLost from error


def _received(pipe: Any) -> Any:
    """Return what a host says. Errors: ``HostLost`` where it has ended."""
    try:
        return pipe.recv()
    except (EOFError, OSError) as error:
        raise HostLost from error


class Here:
    """A host of this machine, a process of this one's, and the files where its ranks meet."""

    def __init__(self, ranks: Sequence[int]) -> None:
        ours, theirs = Pipe()
        self._folder = tempfile.TemporaryDirectory(prefix="moe-routing-meet-")
        self._met = 0
        environment = {"OMP_NUM_THREADS": "1", **os.environ}  # as torchrun sets it
        number = theirs.fileno()
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "moe_routing.implementations.ranks.host", str(number)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(number,),
            env=environment,
        )
        theirs.close()
        self.remote, self.process = Remote(ours, ranks), self._popen.pid
        self.close = weakref.finalize(self, _close, self._popen, ours, self._folder)

    def meet(self) -> Meeting:
        """Return a file that no group has met in."""
        self._met += 1
        return Meeting(path=os.path.join(self._folder.name, str(self._met)))


def _close(popen: subprocess.Popen[bytes], pipe: Connection, folder: Any) -> None:
    """End a host, which ends its ranks, and wait for it."""
    pipe.close()
    with suppress(subprocess.TimeoutExpired):
        popen.wait(5.0)
    popen.kill()
    popen.wait()
    folder.cleanup()

"""The host: a process that loads an adapter once, and forks the ranks that call it.

It reads requests from one connection, and passes on what its ranks say: a rank that has ended, or
that hangs, costs a fork, not the imports of its backend.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from moe_routing.implementations import traces
from moe_routing.implementations.loading import AdapterError
from moe_routing.implementations.protocol import BackendMissing
from moe_routing.implementations.ranks.distributed import Meeting, preload
from moe_routing.implementations.ranks.member import WHERE, Place, forked
from moe_routing.implementations.registry import load_rank

_FRAME = re.compile(r'^  File "(.+)", line (\d+),? in (\S+)$', re.MULTILINE)
_SHOW = 1.0  # seconds in which a rank may write where it is


@dataclass(frozen=True)
class _Rank:
    """A rank that has been forked."""

    pipe: Connection
    process: int
    log: Path


class Host:
    """The ranks of one machine, and the connection to whoever calls them."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._adapter: Any = None
        self._device = "cpu"
        self._ranks: dict[int, _Rank] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="moe-routing-ranks-")
        self._made = 0

    def serve(self) -> None:
        """Serve until the other side ends."""
        try:
            while True:
                pipes: dict[Any, int] = {rank.pipe: number for number, rank in self._ranks.items()}
                for ready in wait([self._pipe, *pipes]):
                    if ready is self._pipe:
                        name, *arguments = self._pipe.recv()
                        getattr(self, f"_{name}")(*arguments)
                        break  # the ranks may be others now
                    self._pass_on(pipes[ready])
        except (EOFError, OSError):
            pass  # the other side has ended
        finally:
            self._stop(shows=False)
            self._folder.cleanup()

    def _load(self, path: list[str], reference: str, device: str) -> None:
        sys.path[:] = path
        try:
            self._adapter, self._device = load_rank(reference, device=device), device
            preload()
            if device == "cpu" and hasattr(self._adapter, "preload"):
                self._adapter.preload()  # on a GPU an import may start the device: no fork has that
        except (AdapterError, BackendMissing) as error:
            self._pipe.send(("refused", type(error).__name__, str(error)))
            return
        methods = [n for n in ("on_rank", "rank_gradients") if hasattr(self._adapter, n)]
        wraps = getattr(self._adapter, "wraps", None)
        head = self._adapter.name, wraps, self._adapter.capabilities(), methods
        self._pipe.send(("loaded", *head))

    def _start(self, numbers: list[int], size: int, meeting: Meeting) -> None:
        self._stop(shows=False)
        self._made += 1
        for number in numbers:
            ours, theirs = Pipe()
            log = Path(self._folder.name) / f"{self._made}-{number}"
            place = Place(rank=number, size=size, meeting=meeting, device=self._device, log=log)
            inherited = [self._pipe, ours, *(rank.pipe for rank in self._ranks.values())]
            process = forked(self._adapter, place, theirs, inherited)
            theirs.close()
            self._ranks[number] = _Rank(ours, process, log)

    def _call(self, calls: dict[int, Any]) -> None:
        for number, call in calls.items():
            if number in self._ranks:
                with suppress(OSError):  # it has ended, which is noted as its pipe is read
                    self._ranks[number].pipe.send(call)

    def _stop(self, shows: bool) -> None:
        """End the ranks; with ``shows``, say first where each of them is."""
        if shows:
            self._pipe.send({number: _place(rank) for number, rank in self._ranks.items()})
        for rank in self._ranks.values():
            with suppress(ProcessLookupError):
                os.kill(rank.process, signal.SIGKILL)
            os.waitpid(rank.process, 0)
            rank.pipe.close()
            rank.log.unlink(missing_ok=True)
        self._ranks = {}

    def _pass_on(self, number: int) -> None:
        rank = self._ranks[number]
        try:
            kind, value = rank.pipe.recv()
        except (EOFError, OSError):
            kind, value = "died", self._ended(self._ranks.pop(number))
        self._pipe.send((number, kind, value))

    def _ended(self, rank: _Rank) -> str:
        rank.pipe.close()
        _, status = os.waitpid(rank.process, 0)
        code = os.waitstatus_to_exitcode(status)
        last = _last_words(rank.log)
        rank.log.unlink(missing_ok=True)
        how = f"killed by {_signal(-code)}" if code < 0 else f"exited with code {code}"
        return f"{how}; it last wrote {last!r}" if last else how


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_words(log: Path) -> str:
    """Return the last line that a rank wrote, but for what its fault handler wrote of frames."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if not line.startswith("  File ")]
    said = [line for line in lines if line and not line.startswith(("Current thread", "Fatal"))]
    return said[-1][:160] if said else ""


def _place(rank: _Rank) -> str:
    """Return where a rank is, as its fault handler writes it: the innermost line, and its call."""
    before = rank.log.stat().st_size if rank.log.exists() else 0
    with suppress(ProcessLookupError):
        os.kill(rank.process, WHERE)
    until = time.monotonic() + _SHOW
    while time.monotonic() < until:
        said = rank.log.read_bytes()[before:].decode(errors="replace")
        if _FRAME.search(said):
            time.sleep(0.05)  # the frames below it
            return _innermost(rank.log.read_bytes()[before:].decode(errors="replace"))
        time.sleep(0.02)
    return ""


def _innermost(said: str) -> str:
    """Return the innermost line of a library, and the backend's that called it, in words."""
    frames = [(path, int(number), name) for path, number, name in _FRAME.findall(said)]
    kept = traces.in_short(frames)[:2]
    short = [(path.rpartition("site-packages/")[2], number, name) for path, number, name in kept]
    return ", from ".join(traces.worded(short))


def main() -> None:
    """Serve the connection whose number is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the run, which ends us
    Host(Connection(int(sys.argv[1]))).serve()
    os._exit(0)  # at once: nothing is left to release


if __name__ == "__main__":
    main()

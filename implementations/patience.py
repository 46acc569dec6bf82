"""Patience: how long processes have been at it, without what a busy or sleeping machine took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

_STEP = 1.0
"""The most seconds that count between two looks, ten of which are made a second: of a longer gap
this process slept itself, as where a machine is suspended or a run is stopped with Ctrl-Z."""

_MOST = 10.0
"""The limits after which nothing is excused: what spins in vain on a busy machine waits as well."""

_NANOSECONDS = 1e-9

Waits = Mapping[str, float]
"""The seconds that each thread has waited for a processor since it began."""


class Patience:
    """The time since it was made that the processes of a session have had; ``leader`` is its first.

    What their threads waited for a processor does not count, that of the one which waited longest:
    a machine that is busy makes a call slow, and a call that hangs waits for no processor.
    """

    def __init__(
        self,
        leader: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        waits: Callable[[int], Waits] | None = None,
    ) -> None:
        self._leader, self._clock, self._waits = leader, clock, waits or waits_of
        self._looked, self._awake = clock(), 0.0
        self._before: Waits | None = None  # read at the first look: most calls are never looked at

    def exceeds(self, limit: float) -> bool:
        """Return whether they have had more than ``limit`` seconds. To be called often."""
        now = self._clock()
        self._awake += min(now - self._looked, _STEP)
        self._looked = now
        if self._before is None:
            self._before = self._waits(self._leader)
        late = self._awake > limit
        return late and (self._awake > _MOST * limit or self._awake - self._waited() > limit)

    def _waited(self) -> float:
        before, after = self._before or {}, self._waits(self._leader)
        return max((after[each] - before.get(each, 0.0) for each in after), default=0.0)


def waits_of(leader: int) -> dict[str, float]:
    """Return what the threads of a session have waited for; nothing where that is not known."""
    found = {}
    for process in session_of(leader):
        for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with suppress(OSError, ValueError):  # it has ended meanwhile, or is not measured
                _, waited, _ = path.read_text().split()
                found[path.parent.name] = int(waited) * _NANOSECONDS
    return found


def session_of(leader: int) -> set[int]:
    """Return the processes of a session; none where they cannot be read."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            _, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
            if int(session) == leader:
                found.add(int(path.parent.name))
    return found

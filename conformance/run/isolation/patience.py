"""Patience: how long a worker has been at it, without what a busy or sleeping machine took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from moe_routing.conformance.run.isolation.watch import session_of

_STEP = 1.0
"""The most seconds that count between two looks, ten of which are made a second: of a longer gap
this process slept itself, as where a machine is suspended or a run is stopped with Ctrl-Z."""

_MOST = 10.0
"""The limits after which nothing is excused: what spins in vain on a busy machine waits as well."""

_NANOSECONDS = 1e-9

Waits = Mapping[str, float]
"""The seconds that each thread has waited for a processor since it began."""


class Patience:
    """The time since it was made that a worker has had, if ``worker`` leads its session.

    What its threads waited for a processor does not count, that of the one which waited longest:
    a machine that is busy makes a call slow, and a call that hangs waits for no processor.
    """

    def __init__(
        self,
        worker: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        waits: Callable[[int], Waits] | None = None,
    ) -> None:
        self._worker, self._clock, self._waits = worker, clock, waits or waits_of
        self._looked, self._awake, self._before = clock(), 0.0, self._waits(worker)

    def exceeds(self, limit: float) -> bool:
        """Return whether the worker has had more than ``limit`` seconds. To be called often."""
        now = self._clock()
        self._awake += min(now - self._looked, _STEP)
        self._looked = now
        late = self._awake > limit
        return late and (self._awake > _MOST * limit or self._awake - self._waited() > limit)

    def _waited(self) -> float:
        after = self._waits(self._worker)
        return max((after[each] - self._before.get(each, 0.0) for each in after), default=0.0)


def waits_of(leader: int) -> dict[str, float]:
    """Return what the threads of a session have waited for; nothing where that is not known."""
    found = {}
    for process in session_of(leader):
        for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with suppress(OSError, ValueError):  # it has ended meanwhile, or is not measured
                _, waited, _ = path.read_text().split()
                found[path.parent.name] = int(waited) * _NANOSECONDS
    return found

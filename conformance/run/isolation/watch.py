"""The watch: the limits of a worker's time and memory."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from moe_routing.conformance.run.environment import usable_cpus
from moe_routing.implementations.patience import session_of

CALL_SECONDS = 60.0
"""The limit of one call unless ``--timeout`` sets another: a thousand times what it takes."""

IDLE_SECONDS = 300.0
"""The limit of loading an adapter, and of the suite's own work between two calls."""

_LOOK = 1.0  # seconds between two searches for processes that a worker has started
_SHARE = 0.8
_GROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The limits of a worker: seconds in one call and outside calls, bytes of memory, threads.

    ``memory`` of None leaves the memory unwatched, ``threads`` of None leaves the number of
    threads to the frameworks.
    """

    call_seconds: float = CALL_SECONDS
    idle_seconds: float = IDLE_SECONDS
    memory: int | None = None
    threads: int | None = None


def fair_threads(jobs: int) -> int | None:
    """Return each of several jobs' share of the processors; None sets no number of threads.

    Frameworks start a thread for each processor, and those of several jobs would wait for
    each other. One job has all, and ``OMP_NUM_THREADS`` takes precedence.
    """
    cpus = usable_cpus()
    if jobs == 1 or cpus is None or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, cpus // jobs)


def available_memory() -> int | None:
    """Return how much of this machine's memory a run may use, in bytes; None where unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    free = sizes["MemAvailable"] * 1024
    group = _GROUP.read_text().strip() if _GROUP.is_file() else "max"
    return int(_SHARE * (free if group == "max" else min(free, int(group))))


class Memory:
    """The memory of a worker and of the processes it has started, as ``/proc`` reports it.

    Finding those processes means reading all there are, which is done once a second.
    """

    def __init__(self, worker: int) -> None:
        self._worker, self._started, self._until = worker, set[int](), 0.0

    def exceeds(self, limit: int) -> bool:
        """Return whether more than ``limit`` bytes are held; pages that are shared count once."""
        if time.monotonic() >= self._until:
            self._started = session_of(self._worker) - {self._worker}
            self._until = time.monotonic() + _LOOK
        held = {self._worker, *self._started}
        resident = {each: _kilobytes(each, "status", "VmRSS:") for each in held}
        if resident[self._worker] * 1024 > limit or sum(resident.values()) * 1024 <= limit:
            return resident[self._worker] * 1024 > limit
        shares = [_kilobytes(each, "smaps_rollup", "Pss:") for each in held]  # slower to read
        return sum(shares) * 1024 > limit


def _kilobytes(process: int, file: str, field: str) -> int:
    """Return a size from a file of ``/proc``; 0 where it cannot be read."""
    try:
        lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)

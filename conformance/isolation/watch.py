"""The watch: how long a worker may take, and how much memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CALL_SECONDS = 60.0
"""What one call may take unless ``--timeout`` says otherwise: a thousand times what it does."""

IDLE_SECONDS = 300.0
"""What loading an adapter, or the suite's own work between two calls, may take."""

_SHARE = 0.8
_GROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The limits of a worker: seconds in one call and outside calls, bytes of memory, threads.

    ``memory`` of None leaves the memory unwatched, ``threads`` of None leaves it to the
    frameworks how many threads they start.
    """

    call_seconds: float = CALL_SECONDS
    idle_seconds: float = IDLE_SECONDS
    memory: int | None = None
    threads: int | None = None


def usable_cpus() -> int | None:
    """Return the processors that this process may use: what frameworks take for threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def fair_threads(jobs: int) -> int | None:
    """Return each of several jobs' share of the processors; None leaves things as they are.

    Frameworks start a thread for each processor, and those of several jobs would wait for
    each other. One job has all, and ``OMP_NUM_THREADS`` goes before.
    """
    cpus = usable_cpus()
    if jobs == 1 or cpus is None or "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, cpus // jobs)


def available_memory() -> int | None:
    """Return what a run may take of this machine's memory, in bytes; None where unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    free = sizes["MemAvailable"] * 1024
    group = _GROUP.read_text().strip() if _GROUP.is_file() else "max"
    return int(_SHARE * (free if group == "max" else min(free, int(group))))


def resident_memory(process: int) -> int:
    """Return the bytes of memory that a process holds; 0 where that cannot be read."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    held = [line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")]
    return int(held[0]) * 1024 if held else 0

"""The watch: how long a worker may take, and how much memory."""

from __future__ import annotations

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
    """The limits of a worker: seconds in one call, seconds outside calls, bytes of memory.

    ``memory`` of None leaves the memory unwatched.
    """

    call_seconds: float = CALL_SECONDS
    idle_seconds: float = IDLE_SECONDS
    memory: int | None = None


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

"""Clocks: the processor's, the device's, and what either can copy in a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

COPIED = 2**28
"""The bytes of the array whose copy measures the bandwidth: beyond every cache."""

_SECONDS = 0.3  # what the timed calls of a row may take
_ROUND = 0.002  # what a round takes at least, so that a device is never waiting for it

Benchmark = Any  # pytest-benchmark's fixture
Turn = AbstractContextManager[None]


_readings: list[Any] = []  # the last event and the seconds up to it


def device_time() -> float:
    """Return the seconds since the first reading, by the device's events; waits for it.

    Adds up the events' distances, since each is a float32 of milliseconds: what lies between
    two readings is exact however long ago the first one was.
    """
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    event.synchronize()
    last, seconds = _readings or (event, 0.0)
    _readings[:] = event, seconds + last.elapsed_time(event) / 1e3
    return _readings[1]


def clock_of(device: str) -> Callable[[], float]:
    """Return the clock that measures a call on ``device``."""
    return device_time if device == "cuda" else time.process_time


@contextmanager
def taking_turns(file: Path) -> Iterator[None]:
    """Wait until no other process is inside such a block with the same ``file``."""
    import fcntl

    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:  # closing it would not do: processes that a backend forked have it open, too
            fcntl.flock(lock, fcntl.LOCK_UN)


def time_calls(benchmark: Benchmark, calls: Sequence[Callable[[], Any]], device: str) -> None:
    """Time ``calls`` in turn, after a warm-up of some; a round is one or more of them."""
    clock = clock_of(device)
    began = time.perf_counter()
    for call in calls:
        call()
        if time.perf_counter() - began > _SECONDS:
            break
    began = clock()
    calls[0]()
    took = max(clock() - began, 1e-6)
    iterations = max(1, int(_ROUND / took))
    rounds = min(max(3, int(_SECONDS / took / iterations)), 100)
    turns = cycle(calls)
    benchmark.pedantic(lambda: next(turns)(), rounds=rounds, iterations=iterations)


@cache
def copy_bandwidth(device: str) -> float:
    """Return the bytes a second that a large copy reads and writes on ``device``."""
    copy = _device_copy() if device == "cuda" else _copy()
    clock, times = clock_of(device), []
    for _ in range(7):
        began = clock()
        copy()
        times.append(clock() - began)
    return 2 * COPIED / median(times[2:])


def _copy() -> Callable[[], Any]:
    source = np.ones(COPIED, np.uint8)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def _device_copy() -> Callable[[], Any]:
    import torch

    source = torch.ones(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def place(benchmark: Benchmark, table: str, row: str, column: str) -> None:
    """Say where the page shows a measurement."""
    benchmark.extra_info |= {"table": table, "row": row, "column": column}

"""Forks of a worker that has loaded an adapter and called nothing: imports are paid for once."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WORKED, _DONE = b"w", b"d"


def threads_running() -> int | None:
    """Return the threads of this process, or None where it cannot be forked, or they counted.

    A thread is lost in a fork, with what it was doing: an adapter that has started one as it was
    loaded, as a device does, cannot be forked.
    """
    threads = Path("/proc/self/task")
    return len(os.listdir(threads)) if hasattr(os, "fork") and threads.is_dir() else None


def in_a_fork(
    work: Callable[[], Any], then: Callable[[Any], object] = lambda made: None
) -> int | None:
    """Do some work in a fork of this process, ``then`` send what it made, and return None.

    Return the code with which the fork ended, or less the signal that killed it, where that was
    in its work. A fork that dies as it sends takes this process with it.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        _ended_after(work, then, theirs)
    os.close(theirs)
    try:
        _, status = os.waitpid(child, 0)
        os.set_blocking(ours, False)  # what the work has started may hold the other end
        marks = _read(ours)
        if marks == _WORKED:
            os._exit(1)
        return None if marks else os.waitstatus_to_exitcode(status)
    finally:
        os.close(ours)


def _ended_after(work: Callable[[], Any], then: Callable[[Any], object], marks: int) -> None:
    """Do some work, send what it made, mark both as done, and end this process."""
    code = 1
    try:
        made = work()
        os.write(marks, _WORKED)
        then(made)
        os.write(marks, _DONE)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 2)
    except BlockingIOError:
        return b""

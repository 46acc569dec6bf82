"""A map over this process or several others, which keeps what was done when it ends early."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Mapper:
    """Calls a function on items, in ``jobs`` processes, and notes each result in order."""

    def __init__(self, jobs: int) -> None:
        self._others = set(active_children())
        self._pool = (
            None if jobs == 1 else ProcessPoolExecutor(jobs, get_context("spawn"), _ends_with_us)
        )

    def __enter__(self) -> Mapper:
        return self

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        note: Callable[[Result], None],
    ) -> None:
        """Pass the results to ``note``, and whatever ends this early on to the caller.

        What other processes have finished by then is noted first, one result perhaps twice.
        """
        if self._pool is None:
            for item in items:
                note(function(item))
            return
        futures = [self._pool.submit(function, item) for item in items]
        try:
            for each in futures:
                note(each.result())
        except (KeyboardInterrupt, BrokenProcessPool):
            for each in filter(_finished, futures):
                note(each.result())
            raise

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=error is None, cancel_futures=True)
        if error is not None:
            for each in set(active_children()) - self._others:
                each.kill()
                each.join()


def _finished(future: Future[Result]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _ends_with_us() -> None:
    """Leave signals to the process that started this one, and end when that one does."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "only a process that was started by another calls this"
    wait([parent.sentinel])
    os._exit(1)

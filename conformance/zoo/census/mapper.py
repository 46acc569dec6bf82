"""A map over this process or several others, which keeps what was done when it ends early."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")

_ENDINGS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


class ProcessLost(Exception):
    """A process that was at work has ended: it was killed, or raised what stderr shows."""


class Mapper:
    """Calls a function on items, in ``jobs`` processes, and notes each result in order.

    A pool of the standard library may wait for ever for a process that was killed as it wrote.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._started: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Mapper:
        if self._jobs > 1:
            with signals_held():
                self._started = dict(_start() for _ in range(self._jobs))
        return self

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        note: Callable[[Result], None],
    ) -> None:
        """Pass the results to ``note``, and an interrupt, or ``ProcessLost``, on to the caller.

        What other processes have sent by then is noted first, one result perhaps twice.
        """
        if not self._started:
            for item in items:
                note(function(item))
            return
        ready: dict[int, Result] = {}
        try:
            noted = 0
            for number, result in self._results(function, items):
                ready[number] = result
                while noted in ready:
                    note(ready[noted])
                    del ready[noted]
                    noted += 1
        except (KeyboardInterrupt, ProcessLost):
            with signals_held():
                for number in sorted(ready):
                    note(ready[number])
            raise

    def _results(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[int, Result]]:
        """Yield the results, with their numbers, as they come."""
        due = enumerate(items)
        at_work: dict[Connection, int] = {}
        idle = list(self._started)
        while True:
            for each, (number, item) in zip(idle, due, strict=False):
                with _lost():
                    each.send((function, item))
                at_work[each] = number
            if not at_work:
                return
            idle = cast("list[Connection]", wait(list(at_work)))
            for each in idle:
                with _lost():
                    result = each.recv()
                yield at_work.pop(each), result

    def __exit__(self, *_: object) -> None:
        with signals_held():
            for each in self._started.values():
                each.kill()
                each.join()


def _start() -> tuple[Connection, BaseProcess]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=False)
    process.start()
    theirs.close()
    return ours, process


@contextmanager
def _lost() -> Iterator[None]:
    """Raise ``ProcessLost`` where the other end of a connection is gone."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ProcessLost from error


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back what would interrupt this process: a second Ctrl-C, or that of tox after ours."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection) -> None:
    """Call what is sent; leave signals to the process that started this one, and end with it."""
    for each in _ENDINGS:
        signal.signal(each, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
    Thread(target=_end_with_parent, daemon=True).start()
    while True:
        function, item = connection.recv()
        connection.send(function(item))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "only a process that was started by another calls this"
    wait([parent.sentinel])
    os._exit(1)

"""Interrupts of a command: one ends a run, and its echo costs neither the report nor the exit code.

``tox`` sends each Ctrl-C once more to a command that the terminal has interrupted already.
"""

from __future__ import annotations

import atexit
import math
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_ECHO = 2.0
"""For so many seconds after an interrupt, another one is its echo; a later one ends all."""


class _Interrupt:
    """A handler of signals that raises ``KeyboardInterrupt``, but not for an echo."""

    def __init__(self) -> None:
        self._last = -math.inf

    @property
    def heeded(self) -> bool:
        """Return whether there was one."""
        return self._last > -math.inf

    def __call__(self, number: int, frame: object) -> None:
        last, self._last = self._last, time.monotonic()
        if self._last - last < _ECHO:
            return
        atexit.register(_end_in_peace)
        raise KeyboardInterrupt


def _end_in_peace() -> None:
    """Let no interrupt meet Python as it ends, with a traceback or another exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def echoes_ignored() -> Iterator[None]:
    """Handle SIGINT as Python does, but for the echoes of one; not where others handle it.

    After an interrupt it stays so: its echo may come as late as the process ends.
    """
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with _handled([signal.SIGINT] if usual else []):
        yield


@contextmanager
def stopped_like_interrupted() -> Iterator[None]:
    """Handle SIGTERM (a cancelled CI job) and SIGHUP (a closed terminal) like an interrupt."""
    with _handled(_endings()):
        yield


@contextmanager
def _handled(signals: Iterable[signal.Signals]) -> Iterator[None]:
    before, handler = {}, _Interrupt()
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in signals}
    for each in before:
        signal.signal(each, handler)
    try:
        yield
    finally:
        for each, earlier in before.items():
            if each != signal.SIGINT or not handler.heeded:
                signal.signal(each, earlier)


def _endings() -> list[signal.Signals]:
    """Return the signals that end this process, except those that it ignores (``nohup``)."""
    known = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
    return [each for each in known if each and signal.getsignal(each) == signal.SIG_DFL]

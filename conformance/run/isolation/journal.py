"""The journal: the case that the backend is about to be called with, written before the call.

A process that dies in the call, or hangs, leaves nothing but this file: the run that started
the process reads from it which case it was, and whether the call had returned. A case is pickled,
as in the frames of the same process: its JSON form takes twenty times as long, before every call.
"""

from __future__ import annotations

import pickle
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moe_routing.conformance.calls.case import AnyCase

_HEADER = 32
_FAR = 10**7  # more than the calls of any clause


class Journal:
    """The writing end: one file, in which the latest call replaces the one before.

    A case for which there is no space left is not written: that is no fault of the backend's.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._calls = 0
        self._text = b""
        self._case: AnyCase | None = None
        self._write("-", b"")

    def calling(self, case: AnyCase) -> None:
        """Write the case of the call that is about to be made, unless it is the latest again."""
        self._calls += 1
        if case is self._case:
            with suppress(OSError):
                self._file.seek(0)
                self._file.write(self._header("c"))
            return
        self._write("c", pickle.dumps(case))
        self._case = case if self._text else None

    def returned(self) -> None:
        """Record that the call has returned."""
        with suppress(OSError):
            self._file.seek(0)
            self._file.write(b"r")

    def cleared(self) -> None:
        """Clear the call, since what follows is not about it; the first line changes."""
        self._calls += 1
        self._write("-", b"")

    def skip(self) -> None:
        """Count on from far above: what a fork counts is not counted here."""
        self._calls += _FAR

    def _write(self, state: str, text: bytes) -> None:
        self._case, self._text = None, text
        if not self._written(state):
            self._text = b""
            self._written(state)

    def _written(self, state: str) -> bool:
        """Write a state with the case, and return whether there was space for it."""
        whole = self._header(state) + self._text
        try:
            self._file.seek(0)
            return self._file.write(whole) == len(whole)
        except OSError:
            return False

    def _header(self, state: str) -> bytes:
        return f"{state} {self._calls:>14} {len(self._text):>14}\n".encode()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The contents of a journal: ``state`` is c in a call, r after one, - before any."""

    state: str
    case: AnyCase | None


def read_mark(path: Path) -> bytes:
    """Return the first line of a journal: a sign of life, cheap to read."""
    with path.open("rb") as file:
        return file.read(_HEADER)


def read_entry(path: Path) -> Entry:
    """Return the contents of the journal of a process that has ended."""
    text = path.read_bytes()
    state, length = text[:1].decode() or "-", int(text[16:_HEADER] or b"0")
    case = None
    if state in ("c", "r") and length:
        case = pickle.loads(text[_HEADER : _HEADER + length])
    return Entry(state=state, case=case)

"""Frames: values sent through a pipe, each pickled and preceded by its length."""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import IO, Any

from moe_routing.conformance.checking.results import ClauseResult

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The answer to a check: the result, whether the process is spoiled, and its threads."""

    result: ClauseResult
    spoiled: bool
    threads: int | None


def send(pipe: IO[bytes], value: Any) -> None:
    """Send one value. Errors: ``OSError`` where the pipe has no reader any more."""
    text = pickle.dumps(value)
    pipe.write(_LENGTH.pack(len(text)) + text)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Return the next value. Errors: ``EOFError`` where the other side has ended."""
    length = _read(pipe, _LENGTH.size)
    return pickle.loads(_read(pipe, _LENGTH.unpack(length)[0]))


def _read(pipe: IO[bytes], count: int) -> bytes:
    text = pipe.read(count)
    if text is None or len(text) < count:
        raise EOFError("the other side has ended")
    return text

"""Frames: values sent through a pipe, each pickled and preceded by its length."""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import IO, Any

from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.trial.call import in_words

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


class Unreadable(Exception):
    """A value came that this process cannot make; the message says why."""


def receive(pipe: IO[bytes]) -> Any:
    """Return the next value.

    Errors: ``EOFError`` where the other side has ended, ``Unreadable`` for a value of a class
    that only the other side has.
    """
    length = _read(pipe, _LENGTH.size)
    text = _read(pipe, _LENGTH.unpack(length)[0])
    try:
        return pickle.loads(text)
    except Exception as error:  # whatever a class raises as it is looked up and made
        raise Unreadable(in_words(error)) from error


def _read(pipe: IO[bytes], count: int) -> bytes:
    text = pipe.read(count)
    if text is None or len(text) < count:
        raise EOFError("the other side has ended")
    return text

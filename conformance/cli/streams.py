"""The standard streams of a command: errors there cost no verdict and no report.

Once the reader has gone (``| head``), nothing more is written. Signs that the encoding of a
stream lacks are replaced.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

_SIGNS = {
    "✓": "+",
    "✗": "x",
    "≈": "~",
    "↑": "^",
    "…": "...",
    "·": ".",
    "━": "-",
    "╸": "-",
    "╺": "-",
}
"""Replacements for the terminal's signs in an encoding that lacks them."""

_LACKING = "moe-routing-signs"


class Lossless:
    """A text stream on which writing never raises ``OSError`` or ``UnicodeEncodeError``.

    ``error`` is the first error in writing, unless the reader has gone. After either, nothing is
    written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._open = True
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text`` if possible."""
        if self._open:
            try:
                self._stream.write(_encodable(text, self._stream))
            except OSError as error:
                self._close(error)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write every line if possible."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered, if possible."""
        if self._open:
            try:
                self._stream.flush()
            except OSError as error:
                self._close(error)

    def _close(self, error: OSError) -> None:
        """Stop writing, and discard the buffer, which Python would write when it ends."""
        self._open = False
        self.error = None if _unread(error) else error
        with suppress(OSError, ValueError):  # a stream that is no file of the system
            number = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            self._stream.flush()


def _unread(error: OSError) -> bool:
    """Return whether the reader has gone, which Windows reports as an invalid argument."""
    invalid = sys.platform == "win32" and error.errno == errno.EINVAL
    return invalid or isinstance(error, BrokenPipeError)


def _encodable(text: str, stream: TextIO) -> str:
    """Return ``text`` with the signs replaced that the encoding of ``stream`` lacks."""
    encoding = getattr(stream, "encoding", None)
    if not encoding:
        return text
    try:
        text.encode(encoding, stream.errors or "strict")
    except UnicodeEncodeError:
        return text.encode(encoding, _LACKING).decode(encoding)
    return text


def _in_other_signs(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_SIGNS.get(sign) or ascii(sign)[1:-1] for sign in lacking), error.end


codecs.register_error(_LACKING, _in_other_signs)


@contextmanager
def lossless() -> Iterator[Lossless | None]:
    """Make the standard streams lossless within the context, and yield the output.

    A closed stream, None in Python, stays None.
    """
    before = sys.stdout, sys.stderr
    output, errors = (Lossless(each) if each is not None else None for each in before)
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, errors)
    try:
        yield output
    finally:
        for stream in (output, errors):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before

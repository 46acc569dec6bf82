"""Plain output: the console of commands that print, and text that no terminal takes for its own.

It imports nothing of a run, so that a command that prints a list answers at once.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import TextIO

from rich.console import Console
from rich.markup import escape

LOG = 160
"""The columns of output that is not a terminal: logs, pipes, CI."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\r]")


def printable(text: str) -> str:
    r"""Return ``text`` with what no terminal, XML or HTML should get as ``\x1b``."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def literal(text: str) -> str:
    """Return ``text`` as rich markup that shows it literally."""
    return escape(printable(text))


def watched(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; ``FORCE_COLOR`` does not turn a log into one."""
    return stream is not None and stream.isatty()


def plain_console() -> Console:
    """Return a console that neither wraps nor cuts lines of logs, pipes and CI.

    Not even where the environment sets colours for them.
    """
    make = partial(Console, highlight=False, emoji=False, soft_wrap=True)
    return make() if watched(sys.stdout) else make(width=LOG)

"""A terminal of a given width: what a command shows on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
"""The commands that a terminal is given among the text."""

QUIET = ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "COLUMNS", "GITHUB_ACTIONS", "CI")


def command(*argv: str) -> list[str]:
    """Return what starts ``moe-routing`` with this environment's Python."""
    return [sys.executable, "-m", "moe_routing.conformance.cli", *argv]


def surroundings(**environment: str) -> dict[str, str]:
    """Return the environment of a person's shell, with ``environment`` added."""
    kept = {name: value for name, value in os.environ.items() if name not in QUIET}
    return {**kept, "OMP_NUM_THREADS": "1", "TERM": "xterm", **environment}


def on_screen(argv: Sequence[str], width: int, **environment: str) -> tuple[int, str]:
    """Run ``moe-routing`` on a terminal; return its exit code and all that was written there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    with subprocess.Popen(
        command(*argv),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=surroundings(**environment),
        start_new_session=True,
    ) as run:
        os.close(theirs)
        written = b"".join(_arriving(ours))
        os.close(ours)
    return run.returncode, written.decode().replace("\r\n", "\n")


def written(argv: Sequence[str], **environment: str) -> tuple[int, str]:
    """Run ``moe-routing`` without a terminal; return its exit code and its output."""
    run = subprocess.run(
        command(*argv),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=surroundings(**environment),
        text=True,
        timeout=300,
    )
    return run.returncode, run.stdout


def _arriving(terminal: int) -> list[bytes]:
    found = []
    with suppress(OSError):  # the other side is closed
        while part := os.read(terminal, 2**16):
            found.append(part)
    return found


def plain(text: str) -> str:
    """Return what stays on the screen, whose lines are as long as they like."""
    screen, row, column = [""], 0, 0
    for escape, sign in re.findall(rf"({ESCAPES.pattern})|(.)", text, re.S):
        if sign == "\n":
            row, column = row + 1, 0
        elif sign == "\r":
            column = 0
        elif escape.endswith("A"):
            row -= int(escape[2:-1] or 1)
        elif escape.endswith("K"):
            screen[row] = ""
        elif sign:
            line = screen[row].ljust(column)
            screen[row] = line[:column] + sign + line[column + 1 :]
            column += 1
        screen += [""] * (row + 1 - len(screen))
    return "\n".join(line.rstrip() for line in screen)

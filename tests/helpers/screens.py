"""A terminal of a given width: what a command shows on it.

The commands run in forks of the test's process, which has imported what they need; those of
``command`` are new processes, for what depends on how an interpreter starts or ends.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import tempfile
import termios
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress

from moe_routing.conformance.cli import main

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
    run = forked(argv, theirs, theirs, theirs, surroundings(**environment))
    os.close(theirs)
    written = b"".join(_arriving(ours))
    os.close(ours)
    return ended(run), written.decode().replace("\r\n", "\n")


def written(argv: Sequence[str], **environment: str) -> tuple[int, str]:
    """Run ``moe-routing`` without a terminal; return its exit code and its output."""
    with tempfile.TemporaryFile() as output, open(os.devnull) as nothing:
        run = forked(
            argv, nothing.fileno(), output.fileno(), output.fileno(), surroundings(**environment)
        )
        code = ended(run)
        output.seek(0)
        return code, output.read().decode()


def forked(
    argv: Sequence[str], stdin: int, stdout: int, stderr: int, environment: Mapping[str, str]
) -> int:
    """Run ``moe-routing`` in a fork with these streams; return the number of its process."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            _take(stdin, stdout, stderr, environment)
            code = main(argv)
        except SystemExit as usage:
            code = int(usage.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)
    return child


def ended(run: int) -> int:
    """Wait for a fork, and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])


def _take(stdin: int, stdout: int, stderr: int, environment: Mapping[str, str]) -> None:
    """Take the streams and the environment that a new process would be given."""
    for number, stream in enumerate((stdin, stdout, stderr)):
        os.dup2(stream, number)
    os.environ.clear()
    os.environ.update(environment)
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(number, "w", closefd=False)),
            encoding=encoding,
            errors=errors,
            line_buffering=True,
        )
        for number, errors in ((1, "strict"), (2, "backslashreplace"))
    )


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

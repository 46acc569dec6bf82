"""Pages that are run as they stand: their files, and their commands with the output.

A block of code whose first line is a comment with a path is a file. An indented line that
begins with ``$`` is a command, and what follows is its output, in which ``...`` stands for
lines that are left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STEP = re.compile(
    r"^```\w+\n# (?P<path>\S+\.\w+)\n(?P<text>(?:.*\n)*?)```"
    r"|^    \$ (?P<command>.+)\n(?P<output>(?:(?:    (?!\$).*)?\n)*)",
    re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that a page gives."""

    path: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that a page shows, with its output."""

    line: str
    output: str


def steps(page: Path) -> Iterator[File | Command]:
    """Yield the steps of a page, in order."""
    for found in _STEP.finditer(page.read_text()):
        if found["path"]:
            yield File(path=found["path"], text=found["text"])
        else:
            yield Command(line=found["command"], output=found["output"])


def carry_out(step: File | Command, folder: Path, **environment: str) -> None:
    """Write the file, or run the command and hold its output against the page's."""
    if isinstance(step, File):
        (folder / step.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / step.path).write_text(step.text)
        return
    said = shell(step.line, folder, **environment)
    said_all = said.stdout + said.stderr
    assert _pattern(step.output).fullmatch(_plain(said_all)), f"$ {step.line}\n{said_all}"


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run as a person's shell does, with this environment's commands on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"OMP_NUM_THREADS": "1", "GITHUB_ACTIONS": "", "COLUMNS": "80"}
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={**os.environ, **quiet, **environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def _plain(text: str) -> str:
    """Leave out what differs from run to run: seconds, and shares of the allowance."""
    text = re.sub(r"\b\d+\.\d+s\b( \(\d+:\d+:\d+\))?", "SECONDS", text)
    text = re.sub(r"( +\d+%)?(?<=[\d%]) +\d+\.\d(?= |$)", " SECONDS", text, flags=re.MULTILINE)
    lines = (re.sub(r" +", " ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _pattern(output: str) -> re.Pattern[str]:
    lines = _plain(output).splitlines()
    parts = [r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in lines]
    whole = "".join(parts)
    return re.compile(whole + ".*" if lines[-1:] == ["..."] else whole.removesuffix(r"\n"))

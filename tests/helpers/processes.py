"""Processes as ``/proc`` lists them."""

from __future__ import annotations

from pathlib import Path


def state_of(pid: int) -> str:
    """The state of a process, Z for one that has ended and is kept; none where there is none."""
    return _fields(pid)[0]


def parent_of(pid: int) -> int:
    """The process that started another."""
    return int(_fields(pid)[1])


def _fields(pid: int) -> list[str]:
    """What its line says behind its name, which may have spaces."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ["", "0"]
    return line.rpartition(")")[2].split()

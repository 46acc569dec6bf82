"""Files that are named twice, or that are read and would be written over: refused before a run."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from pathlib import Path

from moe_routing.conformance.cli.options import UsageError

_ANOTHER = "name another file"

Read = Iterable[tuple[Path, str]]
"""Files that are read, each with what it is."""


def check_outputs(
    outputs: Mapping[str, Path], *, folders: Mapping[str, Path] | None = None, read: Read = ()
) -> None:
    """Raise ``UsageError`` where what is written, by its option, would spoil another file.

    ``folders`` are those that cases are written to, by their options. Pipes and devices hold
    nothing, and may be named more than once.
    """
    files = {option: path for option, path in outputs.items() if _holds_text(path)}
    for one, other in combinations(files, 2):
        if _same(files[one], files[other]):
            named = f"{one} {files[one]} and {other} {files[other]}"
            raise UsageError(f"{named} are one file: give each a file of its own")
    for option, path in files.items():
        _check_above(option, path, {**files, **(folders or {})})
        _check_unread(option, path, [*read, *_standard_output()])


def check_unmixed(
    outputs: Mapping[str, Path], option: str, folder: Path, is_case: Callable[[Path], bool]
) -> None:
    """Raise ``UsageError`` for an output that lies where ``option`` has its cases."""
    for each, path in outputs.items():
        if _real(path).parent.parent == _real(folder) and is_case(path):
            where = f"{each} {path} lies where {option} {folder} has its cases"
            raise UsageError(f"{where}: {_ANOTHER}")


def over_baseline(path: Path) -> tuple[Path, str]:
    """Return the baseline among the files that are read, and why it is not to be replaced."""
    excused = "so that the next run would excuse what this one finds"
    accept = "and replace the baseline once you accept that report"
    return path, f"--baseline {path}, {excused}: {_ANOTHER}, {accept}"


def over(path: Path, role: str) -> tuple[Path, str]:
    """Return a file among those that are read; ``role`` says what it is."""
    return path, f"{role}: {_ANOTHER}"


def _check_above(option: str, path: Path, others: Mapping[str, Path]) -> None:
    for other, below in others.items():
        if other != option and (_same(path, below) or _real(path) in _real(below).parents):
            needed = f"{option} {path} is a file, where {other} {below} needs a folder"
            raise UsageError(f"{needed}: {_ANOTHER}")


def _check_unread(option: str, path: Path, read: Read) -> None:
    if path.suffix == ".py" and path.is_file():
        raise UsageError(f"{option} {path} would overwrite source code: {_ANOTHER}")
    for each, words in read:
        if _same(path, each):
            raise UsageError(f"{option} {path} would overwrite {words}")


def _standard_output() -> Read:
    """Yield the file that the standard output goes to, where it goes to one."""
    try:
        number = sys.stdout.fileno()
        if stat.S_ISREG(os.fstat(number).st_mode):
            yield over(Path(f"/dev/fd/{number}"), "the standard output, which goes there")
    except (AttributeError, OSError, ValueError):  # it is closed, or no file of the system
        return


def _holds_text(path: Path) -> bool:
    return path.is_file() or not path.exists()


def _same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, or will once it exists."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return _real(one) == _real(other)


def _real(path: Path) -> Path:
    return Path(os.path.normcase(os.path.realpath(path)))

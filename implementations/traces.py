"""Where an exception arose: the lines of a backend that it passed, in few words."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

MOST = 4
"""The most lines of a traceback that are shown."""

_HOUSE = Path(__file__).parents[1]
_SUITE = tuple(str(_HOUSE / name) for name in ("conformance", "implementations", "reference"))
_ADAPTERS = tuple(str(_HOUSE / name) for name in ("implementations", "reference"))
_STANDARD = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
_INSTALLED = ("site-packages", "dist-packages")
_LOADERS = ("loading.py", "registry.py")
_ARRAYS = ("numpy", "torch")

Line = tuple[str, int, str]
"""A file, a line in it, and the function that it belongs to."""


def place(error: BaseException) -> str:
    """Return the line of the backend at which ``error`` arose, in brackets, or nothing."""
    if isinstance(error, SyntaxError):  # which names its own
        return ""
    found = backend_lines(reversed(_lines(error)))
    return f" ({shown(found[0][0])}:{found[0][1]})" if found else ""


def where(error: BaseException) -> tuple[str, ...]:
    """Return the lines of the backend that ``error`` passed, innermost first.

    A line of a library in which it arose comes before them.
    """
    return tuple(worded(in_short(reversed(_lines(error)))))


def in_short(innermost_first: Iterable[Line]) -> list[Line]:
    """Return the most useful lines: where it arose, if in a library, then the backend's."""
    lines = [each for each in innermost_first if not each[0].startswith("<")]
    backend = backend_lines(lines)
    first = [each for each in lines[:1] if backend and not _is_in(each[0], _SUITE)]
    return list(dict.fromkeys([*first, *backend]))[:MOST]


def backend_lines(innermost_first: Iterable[Line]) -> list[Line]:
    """Return the lines of a backend among those of a traceback.

    They are all but those of the suite, of the standard library and of the array libraries. Of a
    backend that came with the suite they are those of its adapter.
    """
    lines = [each for each in innermost_first if not _is_library(each[0])]
    outside = [each for each in lines if not _is_in(each[0], _SUITE)]
    return outside or [each for each in lines if _is_in(each[0], _ADAPTERS) and not _loads(each[0])]


def worded(lines: Iterable[Line]) -> Iterator[str]:
    """Word lines as ``my_router.py:23 in route``."""
    return (f"{shown(path)}:{number} in {name}" for path, number, name in lines)


def shown(path: str) -> str:
    """Return a path as short as it can be said from the working directory."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (OSError, ValueError):  # it is elsewhere, or there is no working directory any more
        return path


def _lines(error: BaseException) -> list[Line]:
    frames = traceback.walk_tb(error.__traceback__)
    return [(each.f_code.co_filename, line, each.f_code.co_name) for each, line in frames]


def _is_library(path: str) -> bool:
    """Return whether a file is no backend's: one of Python's own, of NumPy or of torch."""
    if path.startswith("<") or _is_in(path, _array_folders()):
        return True
    return _is_in(path, _STANDARD) and not set(_INSTALLED) & set(Path(path).parts)


def _array_folders() -> list[str]:
    modules = [sys.modules.get(name) for name in _ARRAYS]
    return [str(Path(each.__file__).parent) for each in modules if each and each.__file__]


def _loads(path: str) -> bool:
    """Return whether a file only finds and builds adapters."""
    return Path(path).name in _LOADERS and _is_in(path, _ADAPTERS)


def _is_in(path: str, folders: Sequence[str]) -> bool:
    return any(path.startswith(folder + os.sep) for folder in folders)

"""Whole files: no reader sees half of one, and a full disk leaves no half behind."""

from __future__ import annotations

import os
from contextlib import suppress
from json import JSONDecodeError
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, and make its folder; the old file stays until the new one is whole.

    A link stays a link; a pipe or device is written to directly. Errors:
    ``OSError``, which names ``path``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            _replace(Path(os.path.realpath(path)), text)
    except OSError as error:  # which names another path, or none where a disk is full
        raise OSError(error.errno, reason(error), str(path)) from error


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):  # it is gone where all went well
            unfinished.unlink()


def reason(error: Exception) -> str:
    """Return why something could not be written or read, in the system's words if it has some."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, JSONDecodeError) and not error.doc.strip():
        return "it is empty"
    return str(error)

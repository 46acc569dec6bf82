"""The nearest file: which adapter a reference means that names a file only nearly rightly."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path

_MOST = 3


def adapters_like(reference: str) -> list[str]:
    """Return the references that ``reference`` may mean, if it begins with a Python file.

    ``b.py``, ``b.py::Flat``, ``b:Flat``, ``b.Flat`` and ``b`` stand for ``b.py:Flat``, where
    there is such a file. It is read and not imported.
    """
    path, _, attribute = reference.partition(":")
    for file, rest in _files(path):
        if file.is_file():
            wanted = attribute.strip(":") or rest
            return [f"{file}:{name}" for name in _names(file, wanted)]
    return []


def files_like(path: str) -> list[str]:
    """Return the Python files of a folder whose names are like that of ``path``."""
    folder = Path(path).parent
    names = sorted(each.name for each in folder.glob("*.py")) if folder.is_dir() else []
    near = difflib.get_close_matches(Path(path).name, names, n=_MOST)
    return [str(folder / name) for name in near]


def _files(path: str) -> Iterator[tuple[Path, str]]:
    """Yield the files that a path may stand for, each with what is left of the path."""
    if path.endswith(".py"):
        yield Path(path), ""
        return
    head, _, last = path.rpartition(".")
    yield Path(f"{path}.py"), ""
    yield Path(f"{path.replace('.', '/')}.py"), ""
    yield Path(head if head.endswith(".py") else f"{head.replace('.', '/')}.py"), last


def _names(file: Path, wanted: str) -> list[str]:
    """Return the names in a file that ``wanted`` may mean; of a file of none, a placeholder."""
    names = _public(file)
    near = [wanted] if wanted in names else difflib.get_close_matches(wanted, names, n=_MOST)
    return near or names[:_MOST] or ["NAME"]


def _public(file: Path) -> list[str]:
    """Return what a file may hold an adapter in: its classes, or else all that it defines."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):  # the import reports it
        return []
    classes = [each.name for each in body if isinstance(each, ast.ClassDef)]
    functions = [each.name for each in body if isinstance(each, ast.FunctionDef)]
    return [name for name in classes or functions if not name.startswith("_")]

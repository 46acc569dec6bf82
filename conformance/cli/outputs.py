"""The options that say where a run is written, beside the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_routing.conformance.checking.results import RunResult

FILES = {
    "json": "write the report",
    "junit": "write JUnit XML, for CI services",
    "markdown": "write the matrix and the failures as Markdown",
    "html": "write a page with the matrix and the failures, drawn",
}
"""The kinds of file, and what ``--help`` says of them."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    for kind, words in FILES.items():
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=words)
    parser.add_argument(
        "--github",
        action=argparse.BooleanOptionalAction,
        help="annotate, and write the job summary; default: in a GitHub workflow",
    )


def paths(arguments: argparse.Namespace) -> dict[str, Path]:
    """Return the files asked for, by kind, their folders made. Errors: ``OSError``."""
    asked = {kind: getattr(arguments, kind) for kind in FILES if getattr(arguments, kind)}
    for kind, path in asked.items():
        make_room(f"--{kind}", path)
    return asked


def make_room(option: str, path: Path) -> None:
    """Make the folder of the file that ``option`` names. Errors: ``OSError``, in one line."""
    if path.is_dir():
        raise IsADirectoryError(f"Cannot write {option} {path}: it is a folder; name a file")
    _check_above(option, path, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)


def check_folder(option: str, path: Path) -> None:
    """Raise ``OSError`` where ``path`` is no folder and cannot be made one; make none yet."""
    _check_above(option, path, path)


def _check_above(option: str, path: Path, folder: Path) -> None:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        words = f"{there} is a file, where a folder is needed"
        raise NotADirectoryError(f"Cannot write {option} {path}: {words}")


def write(run: RunResult, files: dict[str, Path]) -> None:
    """Write the files."""
    from moe_routing.conformance.report.files import write_files

    write_files(run, files)


def tell_github(run: RunResult, wanted: bool | None, *, red: bool) -> None:
    """Annotate and write the job summary, where ``wanted`` or, if None, in a workflow of GitHub.

    What a baseline excuses is no error (``red`` is False) but a warning.
    """
    from moe_routing.conformance.report.github import annotations, on_github, write_summary

    if on_github() if wanted is None else wanted:
        write_summary(run)
        print("\n".join(annotations(run, level="error" if red else "warning")))

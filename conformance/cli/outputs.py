"""The options that write a run to files, and to GitHub."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from moe_routing.conformance.cli.options import complain

if TYPE_CHECKING:
    from moe_routing.conformance.checking.results import RunResult

FILES = {
    "json": "write the report",
    "junit": "write JUnit XML, for CI services",
    "markdown": "write the matrix and the failures as Markdown",
    "html": "write a page with the matrix and the failures, drawn",
    "sarif": "write SARIF 2.1.0, for code scanning",
    "gitlab": "write GitLab's code quality report",
    "badge": "write the JSON of a badge, for shields.io/endpoint",
}
"""The kinds of file, and their lines in ``--help``."""


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
    """Return the reports that are wanted, by the option of each."""
    named = {f"--{kind}": getattr(arguments, kind) for kind in FILES}
    return {option: path for option, path in named.items() if path is not None}


def make_room(files: Mapping[str, Path]) -> None:
    """Make the folders of the files that options name. Errors: ``OSError``, in one line."""
    for option, path in files.items():
        if path.is_dir():
            raise IsADirectoryError(f"Cannot write {option} {path}: it is a folder; name a file")
        _check_folders(option, path, path.parent)
    for option, path in files.items():
        _make_folder(option, path)


def _make_folder(option: str, path: Path) -> None:
    from moe_routing.conformance.cases.whole import reason

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"Cannot write {option} {path}: {reason(error)}") from error
    is_no_file = path.exists() and not path.is_file()
    if not is_no_file and not os.access(path.parent, os.W_OK):
        raise PermissionError(f"Cannot write {option} {path}: {path.parent} is read-only")


def check_folder(option: str, path: Path) -> None:
    """Raise ``OSError`` where ``path`` is no folder and cannot be made one; make none yet."""
    _check_folders(option, path, path)


def _check_folders(option: str, path: Path, folder: Path) -> None:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        words = f"{there} is a file, where a folder is needed"
        raise NotADirectoryError(f"Cannot write {option} {path}: {words}")


Texts = Mapping[str, tuple[Path, Callable[[], str]]]
"""By the option that names a file: its path, and the function that makes its text."""


def write_texts(texts: Texts) -> bool:
    """Write each file, print why one cannot be written, and return whether all were."""
    from moe_routing.conformance.cases.whole import reason, write_whole

    written = True
    for option, (path, make) in texts.items():
        text = make()
        try:
            write_whole(path, text)
        except OSError as error:
            complain(f"Cannot write {option} {path}: {reason(error)}")
            written = False
    return written


def write(run: RunResult, files: Mapping[str, Path]) -> bool:
    """Write the reports of a run, by their options; return whether all were written."""
    from moe_routing.conformance.report.files import FORMATS

    makers = {option: FORMATS[option.removeprefix("--")] for option in files}
    return write_texts({each: (path, partial(makers[each], run)) for each, path in files.items()})


def report_to_github(run: RunResult, wanted: bool | None, *, red: bool) -> bool:
    """Annotate and write the job summary, where ``wanted`` or, if None, in a workflow of GitHub.

    A failure that a baseline excuses is a warning instead of an error (``red`` is False).
    Return whether the summary, if wanted, was written.
    """
    from moe_routing.conformance.report.github import annotations, on_github

    if not (on_github() if wanted is None else wanted):
        return True
    written = _write_summary(run)
    print("\n".join(annotations(run, level="error" if red else "warning")))
    return written


def _write_summary(run: RunResult) -> bool:
    from moe_routing.conformance.cases.whole import reason
    from moe_routing.conformance.report.github import summary_path, write_summary

    try:
        write_summary(run)
    except OSError as error:
        complain(f"Cannot write the job summary {summary_path()}: {reason(error)}")
        return False
    return True

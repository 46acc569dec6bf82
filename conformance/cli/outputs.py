"""The options that say where a run is written, beside the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_routing.conformance.results import RunResult

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
        if path.is_dir():
            raise IsADirectoryError(f"Cannot write --{kind} {path}: it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
    return asked


def write(run: RunResult, files: dict[str, Path], github: bool | None) -> None:
    """Write the files, and what GitHub reads where ``github`` or its workflow wants it."""
    from moe_routing.conformance.writers.files import write_files
    from moe_routing.conformance.writers.github import annotations, on_github, write_summary

    write_files(run, files)
    if on_github() if github is None else github:
        write_summary(run)
        print("\n".join(annotations(run)))

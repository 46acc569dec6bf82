"""``moe-routing site``: static pages from reports, over backends, versions and time."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from moe_routing.conformance.cli.exit_codes import epilog
from moe_routing.conformance.cli.options import Commands, UsageError


def add(commands: Commands) -> None:
    """Add the parser of ``site``."""
    site = commands.add_parser(
        "site",
        help="write static pages from reports, over backends, versions and time",
        epilog=epilog("site"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    site.add_argument(
        "report",
        nargs="+",
        type=Path,
        metavar="REPORT",
        help="JSON reports of check, the oldest first; of a folder all *.json, by name",
    )
    site.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder of the pages"
    )
    site.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the pages. Errors: ``ReportError``, ``UsageError``, ``OSError``."""
    from moe_routing.conformance.cases.whole import write_whole
    from moe_routing.conformance.report.diff import load_report
    from moe_routing.conformance.report.site import site
    from moe_routing.reference.checks import counted

    paths = list(_files(arguments.report))
    pages = site(list(zip(_labels(paths), map(load_report, paths), strict=True)))
    stale = _room(arguments.out, pages)
    for name, text in pages.items():
        write_whole(arguments.out / name, text)
    for path in stale:
        path.unlink(missing_ok=True)
    made = counted(len(pages), "page")
    print(f"{arguments.out / 'index.html'}: {made} of {counted(len(paths), 'report')}")
    return 0


def _files(given: Sequence[Path]) -> Iterator[Path]:
    """Yield the reports, those of a folder by name. Errors: ``UsageError``."""
    for path in given:
        if not path.is_dir():
            yield path
            continue
        found = sorted(path.glob("*.json"))
        if not found:
            raise UsageError(f"{path} is a folder without a *.json: name reports of check --json")
        yield from found


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return what the pages call each report: its file's name, or its path among namesakes."""
    names = Counter(path.stem for path in paths)
    return [path.stem if names[path.stem] == 1 else str(path.with_suffix("")) for path in paths]


def _room(folder: Path, pages: Mapping[str, str]) -> list[Path]:
    """Return the pages of an earlier site that this one lacks.

    Errors: ``UsageError`` where a file in the way is no page of a site, ``OSError``.
    """
    from moe_routing.conformance.cli.outputs import check_folder

    check_folder("--out", folder)
    before = [path for path in folder.glob("*.html") if _is_ours(path)] if folder.is_dir() else []
    for name in pages:
        path = folder / name
        if path.exists() and path not in before:
            raise UsageError(
                f"--out {folder} has {name}, which is no page of a site: name another folder"
            )
    return [path for path in before if path.name not in pages]


def _is_ours(path: Path) -> bool:
    """Return whether a file is a page that this command wrote."""
    from moe_routing.conformance.report.site import MARK

    with path.open("rb") as file:
        return MARK.encode() in file.read(4096)

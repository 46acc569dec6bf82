"""``moe-routing adapters``: list the registered adapters, or write their table."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_routing.conformance.cli.clashes import check_outputs, over
from moe_routing.conformance.cli.options import Commands, UsageError
from moe_routing.conformance.cli.outputs import make_room, write_texts

if TYPE_CHECKING:
    from rich.text import Text


def add(commands: Commands) -> None:
    """Add the parser of ``adapters``."""
    listing = commands.add_parser("adapters", help="list the registered adapters")
    listing.add_argument("glob", nargs="*", metavar="GLOB", help="names, such as 'my-*'")
    listing.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the table of what each claims"
    )
    listing.add_argument(
        "--report",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a JSON report to fill the table's conformance columns from",
    )
    listing.add_argument(
        "--keep",
        action="store_true",
        help="keep the conformance that the table has of adapters that are in no report",
    )
    listing.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the adapters, what each wraps and whether that is installed, and what has none."""
    from moe_routing.implementations import out_of_scope, registered
    from moe_routing.implementations.registry import ranked

    if arguments.report and arguments.markdown is None:
        raise UsageError("--report requires --markdown")
    if arguments.keep and arguments.markdown is None:
        raise UsageError("--keep requires --markdown")
    known = registered()
    names = {name: known[name] for name in _matching(known, arguments.glob)}
    unserved = {name: out_of_scope()[name] for name in _matching(out_of_scope(), arguments.glob)}
    ranks = _matching(ranked(), arguments.glob)
    if arguments.glob and not names and not unserved and not ranks:
        raise UsageError(f"No adapter matches {', '.join(arguments.glob)}")
    if arguments.markdown is None:
        _print(names, unserved, ranks)
    else:
        read = [over(path, f"--report {path}, which is read") for path in arguments.report]
        from moe_routing.conformance.report.diff import load_report

        check_outputs({"--markdown": arguments.markdown}, read=read)
        reports = [load_report(path) for path in arguments.report]
        kept = _kept(arguments.markdown) if arguments.keep else ""
        make_room({"--markdown": arguments.markdown})
        text = partial(_page, names, reports, unserved, ranks, kept)
        return 0 if write_texts({"--markdown": (arguments.markdown, text)}) else 2
    return 0


def _kept(page: Path) -> str:
    """Return a page of backends. Errors: ``UsageError`` where there is none."""
    if page.is_dir():
        return ""  # which is refused as it is without --keep
    text = page.read_bytes().decode("utf-8", "replace") if page.exists() else ""
    if "\n| adapter " not in text:
        lacks = "it has no table of backends" if page.exists() else "it is not there"
        words = f"Cannot keep what --markdown {page} has: {lacks}"
        raise UsageError(f"{words}; leave out --keep, or name the page")
    return text


def _matching(names: Mapping[str, str], globs: Sequence[str]) -> list[str]:
    return [n for n in names if not globs or any(fnmatch.fnmatch(n, glob) for glob in globs)]


def _print(names: Mapping[str, str], unserved: Mapping[str, str], ranks: Sequence[str]) -> None:
    from moe_routing.conformance.report.plain import literal, plain_console

    console = plain_console()
    for line in _lines(names, console.width) if names else ():
        console.print(line)
    if ranks:
        console.print("\nwith --ranks N (docs/ranks.md):")
    for name in ranks:
        console.print(f"  {literal(name)}: {literal(_wrapped_by_rank(name))}")
    if unserved:
        console.print("\nout of scope:")
    for name, reason in unserved.items():
        console.print(f"  {literal(name)}: {literal(reason)}")


def _lines(names: Mapping[str, str], width: int) -> Iterator[Text]:
    """Yield the lines of the list; a narrow terminal cuts the location before the name."""
    from rich.text import Text

    from moe_routing.conformance.report.columns import Column, Notes, table
    from moe_routing.conformance.report.plain import printable

    rows = [[Text(printable(cell)) for cell in _row(*each)] for each in sorted(names.items())]
    cells = list(zip(*rows, strict=True))
    columns = [
        Column(head="adapter", cells=cells[0]),
        Column(head="wraps", cells=cells[1], leaves=1),
        Column(head="installed", cells=cells[2]),
    ]
    return table(columns, Notes(head="where", cells=cells[3]), width)


def _row(name: str, where: str) -> tuple[str, str, str, str]:
    """Return an adapter's name, what it wraps, whether that is installed, and where it is."""
    from moe_routing.implementations import AdapterError, load_registered

    try:
        package = getattr(load_registered(name, where), "wraps", None)
    except AdapterError as error:
        return name, "", "broken", str(error)
    return name, package or "", _installed(package) if package else "", where


@cache
def _installed(package: str) -> str:
    """Return the installed version of a package; the members of a family share one."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "no"


def _wrapped_by_rank(name: str) -> str:
    """Return what an adapter of one rank wraps, with its version, or that it is not installed."""
    from moe_routing.implementations.registry import load_rank

    package = getattr(load_rank(name), "wraps", "")
    found = _installed(package)
    return f"{package}, which is not installed" if found == "no" else f"{package} {found}"


def _page(
    names: Mapping[str, str],
    reports: Sequence[Mapping[str, Any]],
    unserved: Mapping[str, str],
    ranks: Sequence[str],
    kept: str,
) -> str:
    from moe_routing.conformance.report.backends import Backend, backends_table
    from moe_routing.conformance.run.seat import wrapped
    from moe_routing.implementations import load_registered
    from moe_routing.implementations.protocol import offered

    backends = []
    for name, where in names.items():
        adapter = load_registered(name, where)
        wraps = " ".join(filter(None, wrapped(adapter)))
        capabilities, methods = adapter.capabilities(), offered(adapter)
        backends.append(Backend(name=name, wraps=wraps, capabilities=capabilities, methods=methods))
    on_ranks = {name: _wrapped_by_rank(name) for name in ranks}
    return backends_table(backends, reports, unserved, on_ranks, kept)

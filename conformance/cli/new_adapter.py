"""``moe-routing new-adapter``: write what a repository needs to check a router of its own."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from moe_routing.conformance.cli.options import Commands

_EPILOG = """\
writes a working adapter around a small router (--experts: around small experts) that you
replace with yours, its tests, an empty list of known divergences, and a GitHub job that checks
it. Existing files are never overwritten.
"""


def add(commands: Commands) -> None:
    """Add the parser of ``new-adapter``."""
    new = commands.add_parser(
        "new-adapter",
        help="write an adapter, its tests and a CI job",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new.add_argument("name", metavar="NAME", help="its name in reports, such as my-router")
    new.add_argument(
        "--directory",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="the top folder of your repository; default: this one",
    )
    new.add_argument(
        "--experts",
        action="store_true",
        help="an adapter of experts, a grouped product for example, in place of a router",
    )
    new.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the files, and say what to do next. Errors: ``ScaffoldError``, ``OSError``."""
    from moe_routing.conformance.scaffold.adapter import EXPERTS, ROUTER, names_for, write_adapter

    names, folder = names_for(arguments.name), arguments.directory
    for path in write_adapter(names, folder, EXPERTS if arguments.experts else ROUTER):
        print(f"wrote {path}")
    what = "experts" if arguments.experts else "router"
    print(f"\nNext, put your {what} at the mark in the adapter. Until then these are green:\n")
    if folder != Path():
        print(f"  cd {shlex.quote(str(folder))}")
    print(f"  moe-routing check {names.reference} --known known/{names.name}.toml")
    print(f"  python -m pytest test_{names.module}.py")
    return 0

"""``moe-routing new-adapter``: write what a repository needs to check a router of its own."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from moe_routing.conformance.cli.options import Commands, UsageError
from moe_routing.conformance.cli.presets import is_config

if TYPE_CHECKING:
    from moe_routing.conformance.scaffold.like import Like

_EPILOG = """\
writes a working adapter around a small router (--experts: small experts; --layer: a small
layer) that you replace with yours, its tests, an empty list of known divergences, and a GitHub
job that checks it. Existing files are never overwritten.
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
    kind = new.add_mutually_exclusive_group()
    kind.add_argument(
        "--experts",
        dest="part",
        action="store_const",
        const="experts",
        help="an adapter of experts, a grouped product for example, in place of a router",
    )
    kind.add_argument(
        "--layer",
        dest="part",
        action="store_const",
        const="layer",
        help="an adapter of a whole layer: its router, its experts and its shared expert",
    )
    kind.add_argument(
        "--like",
        metavar="PRESET",
        help="a router that claims what a shipped model needs (moe-routing presets), or the model "
        "of a config.json",
    )
    new.set_defaults(run=run, part="router")


def run(arguments: argparse.Namespace) -> int:
    """Write the files, and say what to do next. Errors: ``ScaffoldError``, ``OSError``."""
    from moe_routing.conformance.scaffold.adapter import LIKE, PARTS, names_for, write_adapter

    names, folder = names_for(arguments.name), arguments.directory
    like = None if arguments.like is None else _like(arguments.like)
    template = LIKE if like else PARTS[arguments.part]
    for path in write_adapter(names, folder, template, like):
        print(f"wrote {path}")
    print(f"\nNext, put your {arguments.part} at the mark in the adapter.", end=" ")
    print("Until then these are green:\n")
    if folder != Path():
        print(f"  cd {shlex.quote(str(folder))}")
    print(f"  moe-routing check {names.reference} --known known/{names.name}.toml")
    print(f"  python -m pytest test_{names.module}.py")
    return 0


def _like(word: str) -> Like:
    """Return what a preset's name or a ``config.json`` stands for. Errors: ``UsageError``."""
    from moe_routing.conformance.scaffold.like import like_config, like_preset

    try:
        return like_config(word) if is_config(word) else like_preset(word)
    except ValueError as error:
        raise UsageError(str(error)) from error

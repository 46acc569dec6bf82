"""``moe-routing zoo``: test the suite on mutants, which it must catch, and honest variants."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from moe_routing.conformance.checking.profiles import DEFAULT, PROFILES, SMALL
from moe_routing.conformance.cli.clashes import check_outputs
from moe_routing.conformance.cli.exit_codes import epilog
from moe_routing.conformance.cli.interrupts import stopped_like_interrupted
from moe_routing.conformance.cli.options import Commands, positive
from moe_routing.conformance.cli.outputs import make_room, write_texts

if TYPE_CHECKING:
    from moe_routing.conformance.zoo.census.census import Census
    from moe_routing.conformance.zoo.census.plan import CensusPlan


def add(commands: Commands) -> None:
    """Add the parser of ``zoo``."""
    zoo = commands.add_parser(
        "zoo",
        help="test the suite: mutants must be caught, honest variants must pass",
        epilog=epilog("zoo"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    zoo.add_argument(
        "name", nargs="*", metavar="NAME", help="mutants or variants, such as 'bias-*'"
    )
    zoo.add_argument("--only", choices=("mutants", "variants"), help="default: both")
    zoo.add_argument("--profile", choices=SMALL, default=DEFAULT)
    zoo.add_argument("--max-examples", type=positive, metavar="N", help="cases drawn per clause")
    zoo.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed")
    zoo.add_argument("--seeds", type=positive, default=1, metavar="N", help="how many seeds")
    zoo.add_argument("--clause", action="append", default=[], metavar="GLOB")
    zoo.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, metavar="N")
    zoo.add_argument("--json", type=Path, metavar="FILE", help="write the kill matrix")
    zoo.add_argument("--markdown", type=Path, metavar="FILE", help="write the page")
    zoo.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Take the census and show it. Errors: ``NoSuchClause``, ``NoSuchResident``, ``OSError``."""
    from moe_routing.conformance.zoo.census.census import take
    from moe_routing.conformance.zoo.census.console import Watcher
    from moe_routing.conformance.zoo.census.mapper import signals_held

    plan = _plan(arguments)
    named = {"--json": arguments.json, "--markdown": arguments.markdown}
    files = {option: path for option, path in named.items() if path is not None}
    check_outputs(files)
    make_room(files)
    watcher = Watcher(plan)
    with stopped_like_interrupted():
        census = take(plan, jobs=arguments.jobs, on_task=watcher.show)
    with signals_held():
        written = _write(files, census)
    watcher.close(census)
    return int(not census.ok) if written else 2


def _write(files: Mapping[str, Path], census: Census) -> bool:
    from moe_routing.conformance.zoo.census.pages import as_json, as_markdown

    makers = {
        "--json": lambda: json.dumps(as_json(census), indent=1) + "\n",
        "--markdown": lambda: as_markdown(census, _command()),
    }
    return write_texts({option: (path, makers[option]) for option, path in files.items()})


def _plan(arguments: argparse.Namespace) -> CensusPlan:
    from moe_routing.conformance.clauses import select_clauses
    from moe_routing.conformance.zoo import HONEST, MUTANTS, select_residents
    from moe_routing.conformance.zoo.census.plan import CensusPlan

    chosen = select_residents(arguments.name, arguments.only)
    return CensusPlan(
        clauses=tuple(clause.id for clause in select_clauses(arguments.clause)),
        seeds=tuple(range(arguments.seed, arguments.seed + arguments.seeds)),
        max_examples=arguments.max_examples or PROFILES[arguments.profile].max_examples,
        mutants=tuple(name for name in chosen if name in MUTANTS),
        variants=tuple(name for name in chosen if name in HONEST),
    )


def _command() -> str:
    return shlex.join(["moe-routing", *sys.argv[1:]])

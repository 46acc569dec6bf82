"""``moe-routing check``: hold adapters against the specification."""

from __future__ import annotations

import argparse
from pathlib import Path

from moe_routing.conformance.cli import outputs
from moe_routing.conformance.cli.options import (
    CASES,
    EXIT_CODES,
    Commands,
    UsageError,
    complain,
    positive,
)
from moe_routing.conformance.cli.seats import add_options, seats


def add(commands: Commands) -> None:
    """Add the parser of ``check``."""
    check = commands.add_parser(
        "check",
        help="check adapters",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "adapter",
        nargs="+",
        metavar="ADAPTER",
        help="a registered name, package.module:attribute or path/to/file.py:attribute",
    )
    check.add_argument("--profile", choices=("smoke", "ci", "nightly"), default="ci")
    check.add_argument("--max-examples", type=positive, metavar="N", help="drawn a clause")
    check.add_argument("--seed", type=int, default=0, metavar="N")
    check.add_argument("--clause", action="append", default=[], metavar="GLOB")
    check.add_argument(
        "--known",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="known divergences; default: those shipped with the adapters",
    )
    check.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="clauses that run at a time"
    )
    add_options(check)
    check.add_argument(
        "--cases", type=Path, default=CASES, metavar="DIR", help="where failing cases go"
    )
    outputs.add(check)
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the adapters and return the exit code."""
    from moe_routing.conformance.clauses import select_clauses
    from moe_routing.conformance.engine import PROFILES, Plan
    from moe_routing.conformance.runs import check, known_divergences
    from moe_routing.conformance.writers.terminal import Terminal

    plan = Plan(
        clauses=select_clauses(arguments.clause),
        max_examples=arguments.max_examples or PROFILES[arguments.profile],
        seed=arguments.seed,
        known=known_divergences(arguments.known),
    )
    files = outputs.paths(arguments)
    if arguments.no_isolate and arguments.jobs > 1:
        raise UsageError("--jobs runs clauses in processes of their own: leave out --no-isolate")
    terminal = Terminal(several=len(arguments.adapter) > 1)
    result = check(
        seats(arguments.adapter, plan, arguments, jobs=arguments.jobs),
        plan,
        profile=arguments.profile,
        jobs=arguments.jobs,
        cases=arguments.cases,
        writers=[terminal],
    )
    terminal.close(result)
    outputs.write(result, files, arguments.github)
    for each in result.adapters:
        if each.unloaded:
            complain(each.unloaded)
    return result.exit_code

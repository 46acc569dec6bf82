"""The option ``--lf``: only what was red when it was run last."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from moe_routing.conformance.checking.profiles import PROFILES
from moe_routing.conformance.cli.options import UsageError, complain

if TYPE_CHECKING:
    from moe_routing.conformance.checking.results import RunResult


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--lf",
        "--last-failed",
        action="store_true",
        dest="last_failed",
        help="run only what was red last, as recorded where --cases are; all, if nothing was",
    )


def narrow(arguments: argparse.Namespace) -> None:
    """Narrow the adapters and clauses to those that were red, and say so; or say that none was.

    Errors: ``UsageError``, ``NoSuchClause``, ``OSError``.
    """
    from moe_routing.conformance.clauses import select_clauses
    from moe_routing.conformance.report.last_failed import FILE, RecordError, load, red_of
    from moe_routing.implementations import expand
    from moe_routing.reference.checks import counted

    if not arguments.last_failed:
        return
    if arguments.baseline is not None:
        raise UsageError("--lf runs a part, and --baseline compares the whole: remove one of them")
    named = [
        name
        for reference in arguments.adapter
        for name in expand(reference, device=arguments.device)
    ]
    chosen = select_clauses(arguments.clause or PROFILES[arguments.profile].clauses)
    ids = {each.id for each in chosen}
    try:
        red = red_of(load(arguments.cases), arguments.device, named, ids)
    except RecordError as error:
        raise UsageError(str(error)) from error
    file = arguments.cases / FILE
    if not red:
        _say(f"--lf: {file} has nothing red of this run: all of it is run")
        return
    wanted = {each for found in red.values() for each in found}
    arguments.adapter, arguments.clause = list(red), [e.id for e in chosen if e.id in wanted]
    count = counted(len(wanted), "clause")
    _say(f"--lf: {count} on {counted(len(red), 'adapter')}, red when last run ({file})")


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def record(run: RunResult, arguments: argparse.Namespace) -> None:
    """Record what is red for a later ``--lf``; a record that cannot be written costs a line."""
    from moe_routing.conformance.cases.whole import reason
    from moe_routing.conformance.report import last_failed

    try:
        last_failed.record(run, arguments.cases)
    except OSError as error:
        path = arguments.cases / last_failed.FILE
        complain(f"Cannot write {path}: {reason(error)}: --lf will not know of this run")

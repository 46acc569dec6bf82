"""``moe-routing clauses``: list clauses, their statements and their events."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from moe_routing.conformance.cli.options import Commands

if TYPE_CHECKING:
    from moe_routing.conformance.clauses import Clause


def add(commands: Commands) -> None:
    """Add the parser of ``clauses``."""
    clauses = commands.add_parser("clauses", help="list clauses, what they say and what they see")
    clauses.add_argument("glob", nargs="*", metavar="GLOB", help="clause ids, such as 'groups.*'")
    clauses.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the clauses that any glob matches. Errors: ``NoSuchClause``."""
    from moe_routing.conformance.clauses import select_clauses

    for clause in select_clauses(arguments.glob):
        show(clause)
    return 0


def show(clause: Clause) -> None:
    """Print what a clause checks, why, its rules, and what a pass must have seen."""
    from rich.markup import escape

    from moe_routing.conformance.clauses.rules import cited
    from moe_routing.conformance.report.plain import plain_console

    console = plain_console()
    console.print(f"[bold]{clause.id}[/] ({clause.level})  {escape(clause.statement)}")
    console.print(f"  why: {escape(clause.why)}")
    console.print(f"  rules: {', '.join(cited(clause.rules))}")
    for name, statement in _seen(clause):
        console.print(f"  sees {name}: {escape(statement)}")
    console.print(f"  draws from: {', '.join(dict.fromkeys(clause.focus.recipes))}\n")


def _seen(clause: Clause) -> Iterator[tuple[str, str]]:
    """Yield a clause's events with their statements; a family of events takes one line."""
    from moe_routing.conformance.events import FAMILIES

    events = clause.witnesses(bulk=True, huge=True)
    yield from ((event.slug, event.statement) for event in events if event.family is None)
    for family, count in Counter(event.family for event in events if event.family).items():
        yield f"{family}:* ({count})", FAMILIES[family]

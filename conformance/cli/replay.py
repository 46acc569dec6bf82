"""``moe-routing replay``: re-run a saved case."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from moe_routing.conformance.cli.exit_codes import epilog
from moe_routing.conformance.cli.gating import REPEAT_HELP
from moe_routing.conformance.cli.launch import is_another_rank
from moe_routing.conformance.cli.options import Commands, positive
from moe_routing.conformance.cli.seats import add_options, add_ranks, seats
from moe_routing.conformance.trial.repeats import REPEATS

if TYPE_CHECKING:
    from moe_routing.conformance.calls.case import AnyCase
    from moe_routing.conformance.checking.replay import Replayed
    from moe_routing.conformance.clauses import Clause
    from moe_routing.conformance.run.seat import Seat


def add(commands: Commands) -> None:
    """Add the parser of ``replay``."""
    replay = commands.add_parser(
        "replay",
        help="re-run a saved case",
        epilog=epilog("replay"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument("case", type=Path, metavar="CASE")
    replay.add_argument("adapter", nargs="*", metavar="ADAPTER", help="default: reference")
    replay.add_argument("--clause", help="default: the clause that the case file names")
    replay.add_argument("--repeat", type=positive, metavar="N", default=REPEATS, help=REPEAT_HELP)
    add_options(replay)
    add_ranks(replay)
    replay.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the case on every adapter; 0 if it passes, and fails nowhere. Errors: ``CaseError``."""
    if is_another_rank(arguments):
        return 0
    from moe_routing.conformance.cases.files import load_case
    from moe_routing.conformance.checking.plan import Plan
    from moe_routing.conformance.clauses import select_clauses

    case, named = load_case(arguments.case)
    clauses = select_clauses([arguments.clause or named or "selection.valid-top-k"])
    check_kind(arguments.case, case, clauses)
    opened = seats(
        arguments.adapter or ["reference"],
        Plan(clauses=clauses, repeats=arguments.repeat),
        arguments,
    )
    found = [each for open_seat in opened.values() for each in _replay(open_seat(), clauses, case)]
    if any(each.broken for each in found):
        return 1
    if any(each.status == "pass" for each in found):
        return 0
    print("nothing was checked")
    return 1


def check_kind(path: Path, case: AnyCase, clauses: Sequence[Clause]) -> None:
    """Raise ``CaseError`` for a clause on routing with a case of shared experts, or vice versa."""
    from moe_routing.conformance.cases.files import CaseError

    for clause in clauses:
        if not clause.is_about(case):
            raise CaseError(f"{clause.id} is not about the kind of case in {path}")


def _replay(seat: Seat, clauses: Sequence[Clause], case: AnyCase) -> list[Replayed]:
    """Print the result of the case on one adapter, and return it. Errors: ``CannotRun``."""
    from moe_routing.conformance.clauses.rules import rule_lines

    with closing(seat):
        replayed = [(clause, seat.replay(clause, case)) for clause in clauses]
        name = seat.about().name
    for clause, each in replayed:
        words = f": {each.message}" if each.message else ""
        print(f"{each.status}  {name} {clause.id}{words}")
        for line in (*each.details, *(rule_lines(clause.rules) if each.broken else ())):
            print(f"    {line}")
    return [each for _, each in replayed]

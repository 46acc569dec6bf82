"""``moe-routing known``: list a failing case as known, and remove entries that are fixed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_routing.conformance.cli.options import Commands, UsageError
from moe_routing.conformance.cli.replay import check_kind
from moe_routing.conformance.cli.seats import add_options, seats

if TYPE_CHECKING:
    from moe_routing.conformance.clauses import Clause
    from moe_routing.conformance.known.divergence import Divergence
    from moe_routing.conformance.run.seat import Seat


def add(commands: Commands) -> None:
    """Add the parsers of ``known add`` and ``known prune``."""
    known = commands.add_parser("known", help="edit the list of known divergences")
    actions = known.add_subparsers(required=True, metavar="ACTION")
    _add_parser(actions.add_parser("add", help="add a failing case to the list, with its witness"))
    prune = actions.add_parser("prune", help="remove the entries that are fixed")
    prune.add_argument("adapter", nargs="+", metavar="ADAPTER")
    prune.add_argument("--known", type=Path, required=True, metavar="FILE")
    add_options(prune)
    prune.set_defaults(run=run_prune)


def _add_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("case", type=Path, metavar="CASE")
    parser.add_argument("adapter", nargs=1, metavar="ADAPTER")
    parser.add_argument("--known", type=Path, required=True, metavar="FILE")
    parser.add_argument("--id", required=True, help="a short name, such as no-empty-batch")
    parser.add_argument("--reason", required=True, help="one sentence, shown with the verdict")
    parser.add_argument("--link", required=True, help="an issue, or the line of code")
    parser.add_argument("--clause", help="default: the clause that the case file names")
    parser.add_argument(
        "--when", action="append", default=[], metavar="KEY=VALUE", help="narrow the region"
    )
    parser.add_argument("--affects", action="append", default=[], metavar="GLOB")
    add_options(parser)
    parser.set_defaults(run=run_add)


def run_add(arguments: argparse.Namespace) -> int:
    """Add an entry for a case that fails. Errors: ``UsageError`` where it does not."""
    from moe_routing.conformance.cases.files import load_case
    from moe_routing.conformance.known.edit import add_entry

    case, named = load_case(arguments.case)
    wanted: str | None = arguments.clause or named
    if not wanted:
        raise UsageError(f"{arguments.case} names no clause: give the one it breaks with --clause")
    clause = _clause(wanted)
    check_kind(arguments.case, case, [clause])
    open_seat = _seat(arguments, clause)
    with ExitStack() as stack:
        seat = open_seat()
        stack.callback(seat.close)
        replayed, name = seat.replay(clause, case), seat.about().name
    if replayed.suite_fault:
        raise UsageError(f"{arguments.case} cannot be listed: {replayed.message}")
    if not replayed.broken:
        is_ = "passes" if replayed.status == "pass" else f"is {replayed.status}"
        words = f"{arguments.case} {is_} on {name}"
        raise UsageError(f"{words}; only failing cases can be listed")
    added = add_entry(arguments.known, _entry(arguments, clause.id, name), case)
    print(f"added {added.id} at {added.place}: {name} {clause.id}: {replayed.message}")
    return 0


def _clause(glob: str) -> Clause:
    from moe_routing.conformance.clauses import select_clauses

    found = select_clauses([glob])
    _check_one("clause", [glob], [each.id for each in found])
    return found[0]


def _seat(arguments: argparse.Namespace, clause: Clause) -> Callable[[], Seat]:
    from moe_routing.conformance.checking.plan import Plan

    found = seats(arguments.adapter, Plan(clauses=[clause]), arguments)
    _check_one("adapter", arguments.adapter, list(found))
    return next(iter(found.values()))


def _check_one(kind: str, globs: Sequence[str], found: Sequence[str]) -> None:
    if len(found) != 1:
        named = f"{' '.join(globs)} matches {len(found)}: {', '.join(found)}"
        raise UsageError(f"known add takes one {kind}, but {named}; give one of them")


def _entry(arguments: argparse.Namespace, clause: str, adapter: str) -> dict[str, Any]:
    entry = {
        "id": arguments.id,
        "adapters": [adapter],
        "clause": clause,
        "reason": arguments.reason,
        "link": arguments.link,
    }
    if arguments.affects:
        entry["affects"] = arguments.affects
    if when := _when(arguments.when):
        entry["when"] = when
    return entry


def _when(words: list[str]) -> dict[str, Any]:
    from moe_routing.conformance.known.edit import parse_value

    for word in words:
        if "=" not in word:
            raise UsageError(f"--when {word} has no value: write KEY=VALUE, such as tokens=0")
    return {word.partition("=")[0]: parse_value(word.partition("=")[2]) for word in words}


def run_prune(arguments: argparse.Namespace) -> int:
    """Remove the entries whose witnesses pass on every adapter that they name."""
    from moe_routing.conformance.checking.plan import Plan
    from moe_routing.conformance.known.divergence import load_known
    from moe_routing.conformance.known.edit import remove_entries

    entries = load_known(arguments.known)
    with ExitStack() as stack:
        by_name = {}
        for open_seat in seats(arguments.adapter, Plan(clauses=[]), arguments).values():
            seat = open_seat()
            stack.callback(seat.close)
            by_name[seat.about().name] = seat
        fixed = [each for each in entries if _fixed(each, by_name)]
    remove_entries(arguments.known, [each.id for each in fixed])
    for each in fixed:
        print(f"removed {each.id}, which was at {each.place}")
    print(f"{len(fixed)} removed, {len(entries) - len(fixed)} kept")
    return 0


def _fixed(entry: Divergence, seats_: dict[str, Seat]) -> bool:
    """Return whether an entry is fixed on all of its adapters; print those where only some are."""
    from moe_routing.conformance.checking.replay import standings
    from moe_routing.conformance.clauses import CLAUSES

    present = [name for name in entry.adapters if name in seats_]
    clause = CLAUSES[entry.clause]
    found = {
        name: standings([entry], partial(seats_[name].replay, clause))[entry.id] for name in present
    }
    right = [name for name in present if found[name] == "gone"]
    outside = [name for name in present if found[name] == "unclaimed"]
    if outside:
        print(f"{entry.place}: no witness of {entry.id} is claimed by {', '.join(outside)}")
    if right and len(right) < len(entry.adapters):
        some = f"{entry.id} is fixed on some of its adapters"
        print(f"{entry.place}: {some}; remove {', '.join(right)} from `adapters`")
    return bool(right) and len(right) == len(entry.adapters)

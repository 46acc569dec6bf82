"""``moe-routing explain``: draw the routing of a case, or say what a clause is about."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, cast

from moe_routing.conformance.cli import clauses
from moe_routing.conformance.cli.gating import whole
from moe_routing.conformance.cli.options import Commands, UsageError

if TYPE_CHECKING:
    from moe_routing.conformance.calls.routing import Case

_DRAWN = 3


def add(commands: Commands) -> None:
    """Add the parser of ``explain``."""
    explain = commands.add_parser(
        "explain", help="draw the routing of a case, or say what a clause checks, and why"
    )
    explain.add_argument("case", type=Path, metavar="CASE|CLAUSE")
    explain.add_argument(
        "--token", type=whole, action="append", metavar="N", help="default: the first three"
    )
    explain.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw the case. Errors: ``CaseError``; ``UsageError`` where there is nothing to draw."""
    from moe_routing.conformance.clauses import CLAUSES

    if str(arguments.case) in CLAUSES:
        clauses.show(CLAUSES[str(arguments.case)])
        return 0
    if arguments.case.suffix != ".json" and not arguments.case.exists():
        raise UsageError(_neither(str(arguments.case), CLAUSES))
    return _drawn(arguments)


def _neither(name: str, known: Iterable[str]) -> str:
    """Return why what is no file and no clause, a mistyped one most likely, is not explained."""
    near = get_close_matches(name, [*known], n=1)
    hint = f": did you mean {near[0]}?" if near else "."
    return f"{name} is neither a case file nor a clause{hint} `moe-routing clauses` lists all"


def _drawn(arguments: argparse.Namespace) -> int:
    from moe_routing.conformance.cases.files import load_case
    from moe_routing.conformance.cases.kinds import kind_of
    from moe_routing.conformance.explain.picture import picture

    case, clause = load_case(arguments.case)
    if not kind_of(case).routes:
        raise UsageError(f"{arguments.case} holds a call of {case.kind}, which routes nothing")
    count = case.inputs.num_tokens
    tokens = arguments.token or list(range(min(count, _DRAWN)))
    for token in tokens:
        if token >= count:
            tokens_ = f"{count} token{'' if count == 1 else 's'}"
            raise UsageError(f"--token {token} is out of range: {arguments.case} has {tokens_}")
    print(f"{arguments.case}" + (f", of {clause}" if clause else ""))
    try:
        print("\n".join(picture(cast("Case", case), tokens)))
    except (MemoryError, ValueError) as error:
        print(f"nothing to draw, since the reference refuses the call: {error}")
    if count > len(tokens):
        print(f"\n{count - len(tokens)} other tokens; --token N draws one")
    return 0

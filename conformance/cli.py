"""The command ``moe-routing``: check, adapters, clauses, replay. Exit codes 0, 1, 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_routing.implementations import Adapter

CASES = Path("moe-routing-cases")
"""Where failing cases are written unless ``--cases`` says otherwise."""

_EXIT_CODES = """\
exit codes:
  0  every applicable clause is pass or known
  1  any clause is fail, error, crash, timeout, fixed or inconclusive
  2  it could not run: usage, unknown adapter or clause, import failure
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = _parsed(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("moe-routing: interrupted; nothing was decided", file=sys.stderr)
        return 1
    except _expected_errors() as error:
        print(f"moe-routing: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, taking adapters after options as well, which argparse alone does not."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and (any(word.startswith("-") for word in rest) or not hasattr(arguments, "adapter")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.adapter = [*arguments.adapter, *rest]
    return arguments


def _expected_errors() -> tuple[type[Exception], ...]:
    from moe_routing.conformance.case import CaseError
    from moe_routing.conformance.clauses.registry import NoSuchClause
    from moe_routing.conformance.known import KnownError
    from moe_routing.implementations import AdapterError, BackendMissing

    return (AdapterError, BackendMissing, CaseError, KnownError, NoSuchClause, OSError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moe-routing",
        description="Hold Mixture-of-Experts routers against the reference specification.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _check_parser(
        commands.add_parser(
            "check",
            help="check adapters",
            epilog=_EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    listing = commands.add_parser("adapters", help="list the registered adapters")
    listing.set_defaults(run=_adapters)
    clauses = commands.add_parser("clauses", help="list clauses, what they say and what they see")
    clauses.add_argument("glob", nargs="*", metavar="GLOB", help="clause ids, such as 'groups.*'")
    clauses.set_defaults(run=_clauses)
    replay = commands.add_parser("replay", help="put one case file to adapters again")
    replay.add_argument("case", type=Path, metavar="CASE")
    replay.add_argument("adapter", nargs="*", metavar="ADAPTER", help="default: reference")
    replay.add_argument("--clause", help="default: the clause that the case file names")
    replay.add_argument("--device", default="cpu")
    replay.set_defaults(run=_replay)
    return parser


def _check_parser(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "adapter",
        nargs="+",
        metavar="ADAPTER",
        help="a registered name, package.module:attribute or path/to/file.py:attribute",
    )
    check.add_argument("--profile", choices=("smoke", "ci", "nightly"), default="ci")
    check.add_argument("--max-examples", type=_positive, metavar="N", help="drawn a clause")
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
    check.add_argument("--device", default="cpu", metavar="cpu|cuda")
    check.add_argument("--json", type=Path, metavar="FILE", help="write the report")
    check.add_argument(
        "--cases", type=Path, default=CASES, metavar="DIR", help="where failing cases go"
    )
    check.set_defaults(run=_check)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return int(text)


def _load(references: Sequence[str], device: str) -> dict[str, Adapter]:
    from moe_routing.implementations import load_adapter

    return {reference: load_adapter(reference, device=device) for reference in references}


def _check(arguments: argparse.Namespace) -> int:
    from moe_routing.conformance.check import check, known_divergences
    from moe_routing.conformance.clauses import select_clauses
    from moe_routing.conformance.engine import PROFILES, Plan
    from moe_routing.conformance.report import write_report
    from moe_routing.conformance.terminal import Terminal

    plan = Plan(
        clauses=select_clauses(arguments.clause),
        max_examples=arguments.max_examples or PROFILES[arguments.profile],
        seed=arguments.seed,
        known=known_divergences(arguments.known),
    )
    adapters = _load(arguments.adapter, arguments.device)
    terminal = Terminal()
    result = check(
        adapters,
        plan,
        profile=arguments.profile,
        cases=arguments.cases,
        writers=[terminal],
    )
    if arguments.json is not None:
        write_report(result, arguments.json)
    terminal.close(result)
    return result.exit_code


def _adapters(arguments: argparse.Namespace) -> int:
    from rich.table import Table

    from moe_routing.conformance.engine import wrapped
    from moe_routing.conformance.terminal import plain_console
    from moe_routing.implementations import AdapterError, load_adapter, registered

    table = Table(box=None)
    for name in ("adapter", "wraps", "installed", "where"):
        table.add_column(name, no_wrap=True)
    for name, where in sorted(registered().items()):
        try:
            package, version = wrapped(load_adapter(name))
            table.add_row(name, package or "", version or "no", where)
        except AdapterError as error:
            table.add_row(name, "", "broken", str(error))
    plain_console().print(table)
    return 0


def _clauses(arguments: argparse.Namespace) -> int:
    from rich.markup import escape

    from moe_routing.conformance.clauses import select_clauses
    from moe_routing.conformance.terminal import plain_console

    console = plain_console()
    for clause in select_clauses(arguments.glob):
        console.print(f"[bold]{clause.id}[/] ({clause.level})  {escape(clause.statement)}")
        console.print(f"  why: {escape(clause.why)}")
        for event in clause.witnesses():
            console.print(f"  sees {event.slug}: {escape(event.statement)}")
        console.print(f"  draws from: {', '.join(dict.fromkeys(clause.focus.recipes))}\n")
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    from moe_routing.conformance.case import CaseError, SharedCase, load_case
    from moe_routing.conformance.clause_run import evaluate, layout_of
    from moe_routing.conformance.clauses import select_clauses
    from moe_routing.conformance.trial import trial_of

    case, named = load_case(arguments.case)
    clauses = select_clauses([arguments.clause or named or "selection.valid-top-k"])
    broken = False
    for adapter in _load(arguments.adapter or ["reference"], arguments.device).values():
        for clause in clauses:
            if isinstance(case, SharedCase) != (clause.method == "shared_experts"):
                raise CaseError(f"{clause.id} is not about the kind of case in {arguments.case}")
            trial = trial_of(adapter, case, clause.method)
            if clause.layout is not None and layout_of(trial) != clause.layout:
                print(f"unsupported  {adapter.name} {clause.id}: not its layout")
                continue
            outcome = evaluate(clause, trial)
            broken |= outcome.broken
            if not outcome.broken:
                print(f"pass  {adapter.name} {clause.id}")
                continue
            words = outcome.failure.summary if outcome.failure else outcome.error
            print(f"{'fail' if outcome.failure else 'error'}  {adapter.name} {clause.id}: {words}")
            for line in outcome.failure.details if outcome.failure else ():
                print(f"    {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

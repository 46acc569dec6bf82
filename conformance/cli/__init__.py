"""The command ``moe-routing``: one module a command, each with its parser and its function.

A command's module has ``add``, which adds its parser, and imports what is heavy inside its
function, so that ``--help`` answers at once. Exit codes: 0, 1, 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from moe_routing.conformance.cli import (
    adapters,
    audit,
    check,
    clauses,
    compare,
    completion,
    diff,
    explain,
    judge,
    known,
    new_adapter,
    presets,
    replay,
    site,
    zoo,
)
from moe_routing.conformance.cli.interrupts import echoes_ignored
from moe_routing.conformance.cli.options import Parser, UsageError, Version, complain
from moe_routing.conformance.cli.streams import lossless

COMMANDS = (
    check,
    compare,
    judge,
    audit,
    replay,
    explain,
    diff,
    site,
    known,
    clauses,
    adapters,
    presets,
    new_adapter,
    zoo,
    completion,
)
"""The modules of the commands, in the order that ``--help`` lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with echoes_ignored(), lossless() as output:
        code = _ran(argv)
        if output is not None:
            output.flush()
        if output is None or output.error is None:
            return code
        complain(f"Cannot write to the standard output: {output.error.strerror}")
        return 2


def _ran(argv: Sequence[str] | None) -> int:
    arguments = _parsed(argv)
    try:
        code: int = arguments.run(arguments)
        return code
    except KeyboardInterrupt:
        print("moe-routing: interrupted; no verdict", file=sys.stderr)
        return 1
    except _expected_errors() as error:
        complain(_words(error))
        return 2


def _words(error: Exception) -> str:
    """Return what went wrong; of a file that the system could not read or write, without jargon."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, taking adapters after options as well, which argparse alone does not."""
    parser = command_line()
    arguments, rest = parser.parse_known_args(argv)
    if rest and (any(word.startswith("-") for word in rest) or not hasattr(arguments, "adapter")):
        arguments.parser.unknown(rest)
    if rest:
        arguments.adapter = [*arguments.adapter, *rest]
    return arguments


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="moe-routing",
        description="Check Mixture-of-Experts routers against the reference specification.",
        epilog="Exit codes: 0 nothing is red, 1 something is red, 2 it could not run; "
        "moe-routing COMMAND --help lists what counts as red.",
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version, and end")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    parser.set_defaults(whole=parser)
    for each in commands.choices.values():
        each.set_defaults(parser=each)
    return parser


def _expected_errors() -> tuple[type[Exception], ...]:
    from moe_routing.conformance.cases.files import CaseError
    from moe_routing.conformance.clauses.registry import NoSuchClause
    from moe_routing.conformance.known.divergence import KnownError
    from moe_routing.conformance.report.diff import ReportError
    from moe_routing.conformance.run.seat import CannotRun
    from moe_routing.conformance.scaffold.adapter import ScaffoldError
    from moe_routing.conformance.traces.errors import TraceError
    from moe_routing.conformance.zoo.residents import NoSuchResident
    from moe_routing.implementations import AdapterError, BackendMissing
    from moe_routing.implementations.models.passing import CannotAudit

    return (
        AdapterError,
        BackendMissing,
        CannotAudit,
        CannotRun,
        CaseError,
        KnownError,
        NoSuchClause,
        NoSuchResident,
        OSError,
        ReportError,
        ScaffoldError,
        TraceError,
        UsageError,
    )

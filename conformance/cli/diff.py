"""``moe-routing diff``: what changed from one report to another."""

from __future__ import annotations

import argparse
from pathlib import Path

from moe_routing.conformance.cli.exit_codes import epilog
from moe_routing.conformance.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the parser of ``diff``."""
    diff = commands.add_parser(
        "diff",
        help="compare two reports",
        epilog=epilog("diff"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    diff.add_argument("old", type=Path, metavar="OLD")
    diff.add_argument("new", type=Path, metavar="NEW")
    diff.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print every change; 1 where any should stop a gate. Errors: ``ReportError``."""
    from moe_routing.conformance.report.diff import compare, load_report

    difference = compare(load_report(arguments.old), load_report(arguments.new))
    print("\n".join(difference.lines()))
    return 1 if difference.red else 0

"""``moe-routing adapters``: list the registered adapters."""

from __future__ import annotations

import argparse

from moe_routing.conformance.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the parser of ``adapters``."""
    listing = commands.add_parser("adapters", help="list the registered adapters")
    listing.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List every registered adapter, what it wraps, and whether that is installed."""
    from rich.table import Table

    from moe_routing.conformance.seat import wrapped
    from moe_routing.conformance.writers.terminal import plain_console
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

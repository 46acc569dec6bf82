"""The terminal writer: a table a chapter at a time, then every failure with its story."""

from __future__ import annotations

import shlex

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from moe_routing.conformance.engine import ClauseFinished, ClauseStarted
from moe_routing.conformance.results import AdapterResult, ClauseResult, RunResult

STYLES = {
    "pass": "green",
    "known": "yellow",
    "unsupported": "dim",
    "fail": "bold red",
    "error": "bold red",
    "crash": "bold red",
    "timeout": "bold red",
    "fixed": "bold red",
    "inconclusive": "magenta",
}


def plain_console() -> Console:
    """Return a console that neither wraps nor cuts where nobody watches: logs, pipes, CI."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=160)


class Terminal:
    """Shows a run on a console as it happens; progress only where a person watches."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or plain_console()
        self.progress = Progress(
            TextColumn("{task.fields[adapter]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
            disable=not self.console.is_terminal,
        )

    def begin(self, adapter: str, clauses: int) -> None:
        """Start the progress of one adapter."""
        self.progress.start()
        self.task = self.progress.add_task("", total=clauses, adapter=adapter)

    def started(self, event: ClauseStarted) -> None:
        """Name the clause that runs."""
        self.progress.update(self.task, description=event.clause.id)

    def finished(self, event: ClauseFinished) -> None:
        """Count the clause that has run."""
        self.progress.advance(self.task)

    def end(self, result: AdapterResult) -> None:
        """Show everything about one adapter."""
        self.progress.remove_task(self.task)
        self.progress.stop()
        self.console.print(self._table(result))
        for each in result.clauses:
            if each.status in ("fail", "error", "crash", "timeout", "fixed", "inconclusive"):
                self._broken(result, each)
        self._known(result)

    def close(self, result: RunResult) -> None:
        """Show the counts, and what the exit code says."""
        for each in result.adapters:
            counts = each.summary()
            words = ", ".join(f"{n} {name}" for name, n in counts.items() if n and name in _SHOWN)
            self.console.print(
                f"{escape(each.name)}: {words}; "
                f"{counts['applicable']} of {counts['in_spec']} clauses apply"
            )

    def _table(self, result: AdapterResult) -> Table:
        wraps = f" ({result.package} {result.version})" if result.package else ""
        declared = f"  declares {', '.join(result.numerics)}" if result.numerics else ""
        table = Table(title=f"{escape(result.name)}{escape(wraps)}{escape(declared)}", box=None)
        table.title_justify = "left"
        for name in ("status", "clause", "level"):
            table.add_column(name, no_wrap=True)
        for name in ("cases", "tokens", "used", "s"):
            table.add_column(name, justify="right")
        table.add_column("note", overflow="ellipsis", no_wrap=True, max_width=70)
        for each in result.clauses:
            used = f"{each.allowance_used:.0%}" if each.status in ("pass", "known") else ""
            table.add_row(
                f"[{STYLES[each.status]}]{each.status}[/]",
                each.id,
                each.level,
                str(each.constructed + each.examples),
                str(each.tokens),
                used,
                f"{each.seconds:.1f}",
                escape(each.message),
            )
        return table

    def _broken(self, result: AdapterResult, each: ClauseResult) -> None:
        self.console.print(
            f"\n[{STYLES[each.status]}]{each.status}[/] "
            f"{escape(result.name)} {each.id} ({each.level})"
        )
        self.console.print(f"  {escape(each.message)}")
        if each.failure is not None:
            self.console.print(f"  went wrong at: {each.failure.stage}")
            for line in each.failure.details:
                self.console.print(f"    {escape(line)}")
        if each.case_file is not None:
            command = shlex.join(["moe-routing", "replay", each.case_file, result.reference])
            self.console.print(f"  Reproduce with: {escape(command)}")

    def _known(self, result: AdapterResult) -> None:
        known = {
            id_: reason
            for each in result.clauses
            if each.status == "known"
            for id_, reason in each.divergences.items()
        }
        if known:
            self.console.print("\nknown divergences")
        for id_, reason in known.items():
            self.console.print(f"  [yellow]{escape(id_)}[/]: {escape(reason)}")


_SHOWN = ("passed", "failed", "known", "inconclusive", "unsupported", "errors")

"""The terminal writer: progress while it runs, then the table or matrix, then each story."""

from __future__ import annotations

from functools import partial

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.report.text import (
    broken,
    by_clause,
    counts,
    headline,
    notes,
    printable,
    story_lines,
    unasked,
)
from moe_routing.conformance.run.engine import ClauseFinished, ClauseStarted


def plain_console() -> Console:
    """Return a console that neither wraps nor cuts where nobody watches: logs, pipes, CI."""
    make = partial(Console, highlight=False, emoji=False, soft_wrap=True)
    console = make()
    return console if console.is_terminal else make(width=160)


class Terminal:
    """Shows a run on a console: of one adapter a table, of several a matrix at the end."""

    def __init__(self, console: Console | None = None, *, several: bool = False) -> None:
        self.console = console or plain_console()
        self.several = several
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
        self.task = self.progress.add_task("", total=clauses, adapter=literal(adapter))

    def started(self, event: ClauseStarted) -> None:
        """Name the clause that runs."""
        self.progress.update(self.task, description=event.clause.id)

    def finished(self, event: ClauseFinished) -> None:
        """Count the clause that has run."""
        self.progress.advance(self.task)

    def end(self, result: AdapterResult) -> None:
        """Show one adapter as soon as it has been checked."""
        self.progress.remove_task(self.task)
        self.progress.stop()
        if not self.several:
            self.console.print(_table(result))
        for each in broken(result):
            if not unasked(result, each):  # the last line says why
                self._story(result, each)
        self._known(result)

    def close(self, result: RunResult) -> None:
        """Show the matrix and the counts."""
        if self.several:
            self.console.print("", _matrix(result), sep="\n")
        for each in result.adapters:
            self.console.print(f"{literal(each.name)}: {literal(counts(each))}")
        for line in notes(result):
            self.console.print(literal(line))

    def _story(self, result: AdapterResult, each: ClauseResult) -> None:
        title = f"{literal(result.name)} {each.id} ({each.level})"
        self.console.print(f"\n[{STATUSES[each.status].style}]{each.status}[/] {title}")
        for line in story_lines(result, each):
            self.console.print(f"  {escape(line)}")

    def _known(self, result: AdapterResult) -> None:
        known = {
            id_: reason
            for each in result.clauses
            if each.status == "known"
            for id_, reason in each.divergences.items()
        }
        if known:
            where = f" of {literal(result.name)}" if self.several else ""
            self.console.print(f"\nknown divergences{where}")
        for id_, reason in known.items():
            self.console.print(f"  [yellow]{literal(id_)}[/]: {literal(reason)}")
        for finding in (finding for each in result.clauses for finding in each.findings):
            self.console.print(f"  [yellow]{literal(finding)}[/]")


def literal(text: str) -> str:
    """Return ``text`` as rich markup that shows it literally."""
    return escape(printable(text))


def _table(result: AdapterResult) -> Table:
    table = Table(title=literal(headline(result)), box=None)
    table.title_justify = "left"
    for name in ("status", "clause", "level"):
        table.add_column(name, no_wrap=True)
    for name in ("cases", "tokens", "used", "s"):
        table.add_column(name, justify="right")
    table.add_column("note", overflow="ellipsis", no_wrap=True, max_width=70)
    for each in result.clauses:
        used = f"{each.allowance_used:.0%}" if STATUSES[each.status].held else ""
        table.add_row(
            f"[{STATUSES[each.status].style}]{each.status}[/]",
            each.id,
            each.level,
            str(each.constructed + each.examples),
            str(each.tokens),
            used,
            f"{each.seconds:.1f}",
            literal(each.message),
        )
    return table


def _matrix(run: RunResult) -> Table:
    table = Table(box=None)
    table.add_column("clause", no_wrap=True)
    for adapter in run.adapters:
        table.add_column(literal(adapter.name))
    for id_, row in by_clause(run).items():
        cells = [
            f"[{STATUSES[each.status].style}]{STATUSES[each.status].glyph} {each.status}[/]"
            if each
            else ""
            for each in row
        ]
        table.add_row(id_, *cells)
    return table

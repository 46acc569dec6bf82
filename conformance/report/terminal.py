"""The terminal writer: progress while it runs, then the table or matrix, then each story."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.report.columns import Column, Notes, table
from moe_routing.conformance.report.matrix import matrix
from moe_routing.conformance.report.plain import literal, plain_console, printable
from moe_routing.conformance.report.progress import Shown, Silent, shown_on
from moe_routing.conformance.report.text import (
    answered,
    broken,
    counts,
    headline,
    likenesses,
    notes,
    ran,
    story_lines,
)
from moe_routing.conformance.run.engine import ClauseFinished, ClauseStarted

_NOTE = 70


class Terminal:
    """Shows a run on a console: of one adapter a table, of several a matrix at the end.

    ``quiet``: neither of them and no progress, but what is red, and the counts.
    """

    def __init__(
        self, console: Console | None = None, *, several: bool = False, quiet: bool = False
    ) -> None:
        self.console = console or plain_console()
        self.several, self.quiet = several, quiet
        self.progress: Shown = Silent() if quiet else shown_on(self.console, several=several)
        self._checked: list[AdapterResult] = []

    def open(self, references: Sequence[str], clauses: int) -> None:
        """Print what is about to be checked, and by how many clauses each."""
        self.progress.open(references, clauses)

    def begin(self, adapter: str, clauses: int) -> None:
        """Start the progress of one adapter."""
        self.progress.begin(adapter, clauses)

    def started(self, event: ClauseStarted) -> None:
        """Name the clause that runs."""
        self.progress.started(event.clause.id)

    def finished(self, event: ClauseFinished) -> None:
        """Count the clause that has run."""
        self.progress.finished(event.result)

    def end(self, result: AdapterResult) -> None:
        """Show one of several adapters as soon as it has been checked."""
        self.progress.settle(len(broken(result)))
        if not self.several:
            self._checked.append(result)
            return
        self.progress.pause()
        self._stories(result)
        self.progress.resume()

    def stop(self) -> None:
        """Remove the progress, however the run ended."""
        self.progress.pause()

    def close(self, result: RunResult) -> None:
        """Show the table or the matrix, and the counts."""
        self.stop()
        for each in self._checked:
            if not self.quiet and answered(each):
                self._lines(_table(each, self.console.width))
            self._stories(each)
        if self.several and not self.quiet and any(map(answered, result.adapters)):
            self.console.print()
            self._lines(matrix(result, self.console.width))
        for each in result.adapters:
            words = counts(each, reason=False)  # which goes to stderr
            self.console.print(f"{literal(each.name)}: {literal(words)}")
        alike = (f"{name} {words}" for name, words in likenesses(result))
        for line in (*alike, *notes(result)):
            self.console.print(literal(line))

    def _lines(self, lines: Iterator[Text]) -> None:
        for line in lines:
            self.console.print(line)

    def _stories(self, result: AdapterResult) -> None:
        for each in broken(result):
            if ran(result, each):  # the last line gives the reason
                self._story(result, each)
        if not self.quiet:
            self._known(result)

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


def _table(result: AdapterResult, width: int) -> Iterator[Text]:
    """Yield the lines of the table: its note is cut first, then figures are dropped."""
    clauses = result.clauses
    columns = [
        Column(head="status", cells=[_status(each) for each in clauses]),
        Column(head="clause", cells=[Text(each.id) for each in clauses]),
        Column(head="level", cells=[Text(each.level) for each in clauses]),
        _figures("cases", [str(each.constructed + each.examples) for each in clauses]),
        _figures("tokens", [str(each.tokens) for each in clauses], leaves=3),
        _figures("used", [_used(each) for each in clauses], leaves=1),
        _figures("s", [f"{each.seconds:.1f}" for each in clauses], leaves=2),
    ]
    messages = [Text(" ".join(printable(each.message).split())) for each in clauses]
    yield Text(headline(result), style="italic")
    if result.start_seconds is not None:
        yield Text(f" started, and called once, in {result.start_seconds:.1f} s", style="dim")
    yield from table(columns, Notes(head="note", cells=messages, most=_NOTE), width)


def _status(clause: ClauseResult) -> Text:
    return Text(clause.status, style=STATUSES[clause.status].style)


def _used(clause: ClauseResult) -> str:
    """Return the allowance used; over 100 % if answers were wrong in what other clauses check."""
    if not STATUSES[clause.status].held:
        return ""
    return f"{clause.allowance_used:.0%}" if clause.allowance_used <= 1.0 else ">100%"


def _figures(head: str, cells: Sequence[str], *, leaves: int = 0) -> Column:
    return Column(head=head, cells=[Text(each) for each in cells], right=True, leaves=leaves)

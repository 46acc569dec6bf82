"""Progress of a run: a bar on a terminal that is watched, and lines everywhere else.

Lines are for logs: one as the run begins, one for each clause that is not green as soon as it
has run, and one now and then where there was no other line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.report.plain import printable, watched

EVERY = 10.0
"""The seconds after which a line shows the progress, if none was written since."""

_BAR = 12  # columns of the terminal


class Shown(Protocol):
    """What shows the progress of a run."""

    def open(self, references: Sequence[str], clauses: int) -> None:
        """A run of so many clauses an adapter begins."""

    def begin(self, adapter: str, clauses: int) -> None:
        """An adapter is about to be checked."""

    def started(self, clause: str) -> None:
        """A clause is about to run."""

    def finished(self, result: ClauseResult) -> None:
        """A clause has run."""

    def settle(self, red: int) -> None:
        """The adapter has so many red clauses, now that some were checked again."""

    def pause(self) -> None:
        """Make room for results."""

    def resume(self) -> None:
        """Show the progress again."""


def shown_on(console: Console, *, several: bool) -> Shown:
    """Return what shows the progress of a run whose results go to ``console``."""
    errors = Console(stderr=True)
    repaints = watched(sys.stdout) and watched(sys.stderr) and not os.environ.get("CI")
    if repaints and errors.is_interactive and not errors.is_dumb_terminal:
        return Bar(errors)
    return Lines(console, several=several)


class Silent:
    """Shows no progress."""

    def open(self, references: Sequence[str], clauses: int) -> None:
        """Show nothing."""

    def begin(self, adapter: str, clauses: int) -> None:
        """Show nothing."""

    def started(self, clause: str) -> None:
        """Show nothing."""

    def finished(self, result: ClauseResult) -> None:
        """Show nothing."""

    def settle(self, red: int) -> None:
        """Show nothing."""

    def pause(self) -> None:
        """Show nothing."""

    def resume(self) -> None:
        """Show nothing."""


@dataclass
class Tally:
    """How far a run has come: its time, and the clauses of the adapter that is checked."""

    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    adapter: str = ""
    clause: str = ""
    clauses: int = 0
    done: int = 0
    red: int = 0
    red_before: int = 0

    def __post_init__(self) -> None:
        self.began = self.clock()

    def begin(self, adapter: str, clauses: int) -> None:
        """Count the clauses of another adapter; the red ones are counted over all of them."""
        self.adapter, self.clauses, self.done = printable(adapter), clauses, 0
        self.clause, self.red_before = "", self.red

    def count(self, result: ClauseResult) -> None:
        """Count a clause that has run."""
        self.done += 1
        self.red += not result.green

    def settle(self, red: int) -> None:
        """Count as red what stays so, of the clauses of this adapter."""
        self.red = self.red_before + red

    @property
    def time(self) -> str:
        """The time since the run began, as ``0:05`` or ``1:02:03``."""
        minutes, seconds = divmod(int(self.clock() - self.began), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Lines:
    """Progress in lines, each of them written at once."""

    def __init__(
        self,
        console: Console,
        *,
        several: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._several, self._tally = console, several, Tally(clock)
        self._last = self._tally.began

    def open(self, references: Sequence[str], clauses: int) -> None:
        """Print what is checked."""
        what = printable(references[0]) if len(references) == 1 else f"{len(references)} adapters"
        self._print(f"checking {what}: {_counted(clauses, 'clause')}{' each' * self._several}")

    def begin(self, adapter: str, clauses: int) -> None:
        """Name the adapter, if there are several."""
        self._tally.begin(adapter, clauses)
        if self._several:
            self._print(f"{self._tally.time}  {self._tally.adapter}")

    def started(self, clause: str) -> None:
        """Print the progress, if no line was printed for a while."""
        tally = self._tally
        if tally.clock() - self._last >= EVERY:
            done = f"{tally.done} of {_counted(tally.clauses, 'clause')}, {tally.red} red"
            self._print(f"{tally.time}  {done}, now {clause}")

    def finished(self, result: ClauseResult) -> None:
        """Name a clause that is not green."""
        self._tally.count(result)
        if not result.green:
            of = f"{self._tally.adapter} " if self._several else ""
            words = f": {printable(result.message)}" if result.message else ""
            self._print(f"{self._tally.time}  {result.status}  {of}{result.id}{words}")

    def settle(self, red: int) -> None:
        """Correct the count."""
        self._tally.settle(red)

    def pause(self) -> None:
        """Leave the printed lines as they are."""

    def resume(self) -> None:
        """Print nothing until there is progress."""

    def _print(self, words: str) -> None:
        self._console.print(escape(words))
        self._last = self._tally.clock()


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


class Bar:
    """Progress as a bar that is painted again and again, and goes when an adapter ends."""

    def __init__(self, console: Console) -> None:
        self._tally = Tally()
        self._progress = Progress(
            BarColumn(bar_width=_BAR, table_column=Column(no_wrap=True)),
            _Where(self._tally),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)

    def open(self, references: Sequence[str], clauses: int) -> None:
        """Show the bar, while the first adapter is loaded."""
        self._tally.begin("loading", clauses)
        self._progress.start()

    def begin(self, adapter: str, clauses: int) -> None:
        """Begin anew for another adapter."""
        self._tally.begin(adapter, clauses)
        self._progress.reset(self._task, total=clauses)

    def started(self, clause: str) -> None:
        """Name the clause that runs."""
        self._tally.clause = clause

    def finished(self, result: ClauseResult) -> None:
        """Count the clause that has run."""
        self._tally.count(result)
        self._progress.update(self._task, advance=1, refresh=True)

    def settle(self, red: int) -> None:
        """Correct the count."""
        self._tally.settle(red)

    def pause(self) -> None:
        """Remove the bar."""
        self._progress.stop()

    def resume(self) -> None:
        """Show the bar again, while the next adapter is loaded."""
        self._progress.start()


class _Where(ProgressColumn):
    """The progress in words: what matters least comes last, and is cut first."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis"))
        self._tally = tally

    def render(self, task: Task) -> Text:
        """Return the words."""
        tally = self._tally
        style = STATUSES["fail"].style if tally.red else ""
        done = f"{tally.done}/{tally.clauses}  {tally.time}  "
        words = Text(done).append(f"{tally.red} red", style)
        return words.append(f"  {tally.adapter}  {tally.clause}")

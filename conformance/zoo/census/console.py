"""A census on the console: clause by clause, then a summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from moe_routing.conformance.report.columns import Column, Notes, folded, table
from moe_routing.conformance.report.plain import LOG, plain_console
from moe_routing.conformance.zoo.census.census import Census
from moe_routing.conformance.zoo.census.matrix import Alarm, Count, Found, Kill, Task
from moe_routing.conformance.zoo.census.plan import CensusPlan
from moe_routing.conformance.zoo.census.smallest import Smallest
from moe_routing.conformance.zoo.residents import MUTANTS


class Watcher:
    """Shows each clause as it ends, and the summary at the end."""

    def __init__(self, plan: CensusPlan, console: Console | None = None) -> None:
        self.plan, self.console = plan, console or plain_console()

    def show(self, task: Task, found: list[Found]) -> None:
        """Show one clause."""
        kills = [each for each in found if isinstance(each, Kill)]
        alarms = [each for each in found if isinstance(each, Alarm)]
        cases = sum(each.cases for each in found if isinstance(each, Count))
        words = [f"seed {task.seed}  {task.clause:34} {cases:6} cases"]
        if task.mutants:
            words += [f"caught {len(kills):3} mutants, {sum(k.named for k in kills):3} by family"]
        if task.variants:
            words += [f"{len(alarms)} false alarms"]
        self.console.print(escape(folded(words, self.console.width)))

    def close(self, census: Census) -> None:
        """Show the mutants, the alarms, and the figures."""
        if self.plan.mutants:
            for line in self._mutants(census):
                self.console.print(line)
        for alarm in census.alarms:
            self.console.print(
                f"[bold red]false alarm[/] {alarm.variant} {alarm.clause} seed {alarm.seed}: "
                f"{escape(alarm.message)} ({alarm.case.size})"
            )
        for name, seed in census.survivors:
            self.console.print(f"[bold red]survives[/] {name} (seed {seed}): {MUTANTS[name].harm}")
            for words in _uncounted(census, name, seed):
                self.console.print(words)
        for seed in census.seeds if self.plan.mutants else ():
            self.console.print(census.caught(seed))
        if self.plan.variants:
            self.console.print(census.passed)
        self.console.print(
            f"{census.cases:,} cases, {census.answers:,} answers judged, {census.seconds:,.0f} s"
        )
        if census.ended:
            self.console.print(
                f"[bold red]{census.ended} after {census.progress}: partial, so no verdict[/]"
            )

    def _mutants(self, census: Census) -> Iterator[Text]:
        """Yield the lines of the table of mutants, each whole by its name."""
        names = self.plan.mutants
        draws = [census.median_draws(name) for name in names]
        columns = [
            _column("mutant", names),
            _column("family", [MUTANTS[name].family for name in names]),
            _column("draws", ["" if each is None else f"{each:g}" for each in draws]),
            _column("built", [_built(census.killers(name)) for name in names], leaves=2),
            _column("smallest", [_size(census.smallest.get(name)) for name in names], leaves=1),
        ]
        caught = [Text(_named(list(census.killers(name)))) for name in names]
        return table(columns, Notes(head="caught by", cells=caught, most=LOG), self.console.width)


def _uncounted(census: Census, name: str, seed: int) -> Iterator[str]:
    """Yield which clauses caught a survivor without naming its family, if any did."""
    kills = [kill for kill in census.kills if (kill.mutant, kill.seed) == (name, seed)]
    if kills:
        clauses = _named([kill.clause for kill in kills])
        yield f"  caught by {clauses}, without {MUTANTS[name].family} in their bugs"


def _column(head: str, cells: Sequence[str], *, leaves: int = 0) -> Column:
    return Column(head=head, cells=[Text(each) for each in cells], leaves=leaves)


def _built(killers: Mapping[str, Sequence[Kill]]) -> str:
    return "yes" if any(kill.event for kills in killers.values() for kill in kills) else ""


def _size(small: Smallest | None) -> str:
    return f"{small.tokens} x {small.experts}" if small else ""


def _named(killers: Sequence[str]) -> str:
    more = f" +{len(killers) - 3}" if len(killers) > 3 else ""
    return ", ".join(killers[:3]) + more

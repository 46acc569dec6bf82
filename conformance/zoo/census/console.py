"""A census on the console: clause by clause, then a summary."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moe_routing.conformance.report.terminal import plain_console
from moe_routing.conformance.zoo.census.census import SOON, Census, CensusPlan
from moe_routing.conformance.zoo.census.matrix import Alarm, Count, Found, Kill, Task
from moe_routing.conformance.zoo.residents import MUTANTS


class Watcher:
    """Shows each clause as it ends, and the summary at the end."""

    def __init__(self, plan: CensusPlan, console: Console | None = None) -> None:
        self.plan, self.console = plan, console or plain_console()

    def told(self, task: Task, found: list[Found]) -> None:
        """Show one clause."""
        kills = [each for each in found if isinstance(each, Kill)]
        alarms = [each for each in found if isinstance(each, Alarm)]
        cases = sum(each.cases for each in found if isinstance(each, Count))
        words = f"seed {task.seed}  {task.clause:34} {cases:6} cases"
        if task.mutants:
            words += f"  caught {len(kills):3} mutants, {sum(k.named for k in kills):3} by family"
        if task.variants:
            words += f"  {len(alarms)} false alarms"
        self.console.print(escape(words))

    def close(self, census: Census) -> None:
        """Show the mutants, the alarms, and the figures."""
        if self.plan.mutants:
            self.console.print(self._mutants(census))
        for alarm in census.alarms:
            self.console.print(
                f"[bold red]false alarm[/] {alarm.variant} {alarm.clause} seed {alarm.seed}: "
                f"{escape(alarm.message)} ({alarm.case.size})"
            )
        for name, seed in census.survivors:
            self.console.print(f"[bold red]survives[/] {name} (seed {seed}): {MUTANTS[name].harm}")
        for seed in self.plan.seeds if self.plan.mutants else ():
            caught = len(self.plan.mutants) - sum(s == seed for _, s in census.survivors)
            self.console.print(
                f"seed {seed}: {caught} of {len(self.plan.mutants)} mutants caught, "
                f"{census.soon(seed):.0%} within {SOON} drawn cases"
            )
        if self.plan.variants:
            wrong = len({alarm.variant for alarm in census.alarms})
            self.console.print(
                f"{len(self.plan.variants) - wrong} of {len(self.plan.variants)} honest variants "
                "passed"
            )
        self.console.print(
            f"{census.cases:,} cases, {census.answers:,} answers judged, {census.seconds:,.0f} s"
        )

    def _mutants(self, census: Census) -> Table:
        table = Table(box=None)
        for name in ("mutant", "family", "draws", "built", "smallest", "caught by"):
            table.add_column(name, no_wrap=True)
        for name in self.plan.mutants:
            killers, small = census.killers(name), census.smallest.get(name)
            draws = census.median_draws(name)
            table.add_row(
                name,
                MUTANTS[name].family,
                "" if draws is None else f"{draws:g}",
                "yes" if any(k.event for kills in killers.values() for k in kills) else "",
                f"{small.tokens} x {small.experts}" if small else "",
                ", ".join(list(killers)[:3])
                + ("" if len(killers) < 4 else f" +{len(killers) - 3}"),
            )
        return table

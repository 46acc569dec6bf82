"""The matrix of several adapters on a terminal: every clause on every adapter, at any width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.text import Text

from moe_routing.conformance.checking.results import ClauseResult, RunResult
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.report.columns import Column, fit, folded, table
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.text import by_clause

Cells = Sequence[ClauseResult | None]


def matrix(run: RunResult, width: int) -> Iterator[Text]:
    """Yield the lines: with names above the columns; else numbers; else signs, in parts."""
    rows = by_clause(run)
    clause = Column(head="clause", cells=[Text(id_) for id_ in rows])
    names = [printable(adapter.name) for adapter in run.adapters]
    numbers = [str(number) for number, _ in enumerate(names, 1)]
    found: list[Cells] = [[row[n] for row in rows.values()] for n, _ in enumerate(names)]
    for heads in (names, numbers):
        columns = [clause, *_columns(heads, found, _word)]
        if fit(columns, width):
            yield from table(columns, None, width)
            break
    else:
        yield from _parts(clause, _columns(numbers, found, _sign), width)
        yield Text(_meanings(found, width))
    if heads is numbers:
        yield from _legend(numbers, names)


def _columns(
    heads: Sequence[str], found: Sequence[Cells], shown: Callable[[ClauseResult], str]
) -> list[Column]:
    return [
        Column(head=head, cells=[_cell(each, shown) for each in cells])
        for head, cells in zip(heads, found, strict=True)
    ]


def _cell(clause: ClauseResult | None, shown: Callable[[ClauseResult], str]) -> Text:
    if clause is None:
        return Text()
    return Text(shown(clause), style=STATUSES[clause.status].style)


def _word(clause: ClauseResult) -> str:
    return f"{STATUSES[clause.status].glyph} {clause.status}"


def _sign(clause: ClauseResult) -> str:
    return STATUSES[clause.status].glyph


def _parts(clause: Column, columns: Sequence[Column], width: int) -> Iterator[Text]:
    """Yield as many tables as it takes, each with the clauses."""
    while columns:
        sizes = range(len(columns), 1, -1)
        count = next((n for n in sizes if fit([clause, *columns[:n]], width)), 1)
        yield from table([clause, *columns[:count]], None, width)
        yield Text()
        columns = columns[count:]


def _meanings(found: Sequence[Cells], width: int) -> str:
    """Return what the signs of the matrix mean."""
    statuses = {each.status for cells in found for each in cells if each is not None}
    signs: dict[str, list[str]] = {}
    for status, row in STATUSES.items():
        if status in statuses:
            signs.setdefault(row.glyph, []).append(status)
    return folded([f"{sign} {' or '.join(names)}" for sign, names in signs.items()], width)


def _legend(numbers: Sequence[str], names: Sequence[str]) -> Iterator[Text]:
    widest = len(numbers[-1])
    for number, name in zip(numbers, names, strict=True):
        yield Text(f" {number:>{widest}}  {name}")

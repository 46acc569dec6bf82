"""The matrix, adapter by clause, and the bar of filters above it."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import get_args

from moe_routing.conformance.checking.results import ClauseResult, RunResult
from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.report.html.story import anchor, status
from moe_routing.conformance.report.html.tags import Markup, tag
from moe_routing.conformance.report.text import by_clause

Row = list[ClauseResult | None]
"""One clause on every adapter."""


def filters(run: RunResult) -> Markup:
    """The filters: words, a chapter, statuses. Hidden until the script that runs them is there."""
    found = Counter(each.status for adapter in run.adapters for each in adapter.clauses)
    chapters = dict.fromkeys(each.chapter for a in run.adapters for each in a.clauses)
    words = tag("input", type="search", id="words", placeholder="clause, adapter or message")
    options = [tag("option", "all chapters", value="")]
    options += [tag("option", chapter, value=chapter) for chapter in chapters]
    buttons = [
        tag(
            "button",
            f"{name} {found[name]}",
            type="button",
            class_="status",
            data_status=name,
            aria_pressed="false",
        )
        for name in get_args(Status)
        if found[name]
    ]
    return tag(
        "form",
        tag("label", "Find ", words),
        tag("label", "Chapter ", tag("select", *options, id="chapter")),
        tag("div", *buttons, role="group", aria_label="Show only these statuses", class_="chips"),
        tag("output", "", id="count", for_="words chapter", aria_live="polite"),
        id="filters",
        aria_label="Filter the clauses",
        hidden=True,
    )


def matrix(run: RunResult) -> Markup:
    """The table: a row a clause, a column an adapter, a body a chapter."""
    head = tag(
        "tr",
        tag("th", "clause", scope="col"),
        *(tag("th", adapter.name, scope="col") for adapter in run.adapters),
    )
    bodies = [
        _chapter(chapter, list(found), run)
        for chapter, found in groupby(by_clause(run).values(), key=lambda row: _some(row).chapter)
    ]
    table = tag("table", tag("thead", head), *bodies, class_="matrix")
    return tag(
        "div",
        table,
        class_="scrolls",
        role="region",
        aria_label="Statuses of every clause on every adapter",
        tabindex="0",
    )


def _some(row: Row) -> ClauseResult:
    """Return any result of a row, for what all of them share."""
    return next(each for each in row if each is not None)


def _chapter(name: str, rows: list[Row], run: RunResult) -> Markup:
    width = str(1 + len(run.adapters))
    head = tag("tr", tag("th", name, colspan=width, scope="rowgroup"), class_="chapter")
    return tag("tbody", head, *(_row(row, run) for row in rows), data_chapter=name)


def _row(row: Row, run: RunResult) -> Markup:
    clause, found = _some(row), [each for each in row if each is not None]
    level = tag("span", f" {clause.level}", class_="dim level") if clause.level != "MUST" else ""
    name = clause.id.removeprefix(f"{clause.chapter}.")
    words = [adapter.name for adapter in run.adapters] + [each.message for each in found]
    return tag(
        "tr",
        tag("th", tag("span", f"{clause.chapter}.", class_="dim"), name, level, scope="row"),
        *(_cell(number, each) for number, each in enumerate(row)),
        data_status=" ".join(dict.fromkeys(each.status for each in found)),
        data_text=" ".join([clause.id, *words]).lower(),
    )


def _cell(number: int, clause: ClauseResult | None) -> Markup:
    if clause is None:
        return tag("td", tag("span", "not run", class_="dim"))
    shown: Markup = status(clause)
    if not clause.green:
        shown = tag("a", shown, href=f"#{anchor(number, clause)}")
    return tag("td", shown, title=_title(clause), data_status=clause.status)


def _title(clause: ClauseResult) -> str:
    cases = f"{clause.constructed + clause.examples} cases, {clause.tokens} tokens"
    return f"{cases}\n{clause.message}" if clause.message else cases

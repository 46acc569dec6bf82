"""The two pages about all backends: by chapters (``index.html``), and by clauses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.report.html.tags import Markup, tag
from moe_routing.conformance.report.site.records import (
    Backend,
    Change,
    Current,
    changes,
    chapters,
    ordered,
    run_title,
)
from moe_routing.conformance.report.site.shared import (
    glyph,
    listed,
    named,
    page,
    scrolled,
    sign,
    tally,
    worst,
)
from moe_routing.reference.checks import counted

_RUNS = 8  # a week of nights, and the one before
_SHOWN = 12  # what is listed before the rest is folded: a screen


def index(found: Sequence[Backend]) -> str:
    """Return the first page: what is broken, and every backend by chapters."""
    current = {each.page: each.current for each in found}
    found = sorted(found, key=lambda each: not _is_red(current[each.page]))  # else as they were
    return page(
        _headline(found, current),
        "index.html",
        tag("p", _key(), class_="dim"),
        scrolled(_by_chapter(found, current), "Backends by chapters"),
        _broken(found, current),
        _changed(found),
    )


def _headline(found: Sequence[Backend], current: Mapping[str, Mapping[str, Current]]) -> str:
    red = sum(_is_red(current[each.page]) for each in found)
    if not found:
        return "No backend was run"
    return f"{red} of {counted(len(found), 'backend')} broken" if red else "Nothing is broken"


def _is_red(current: Mapping[str, Current]) -> bool:
    return any(not result.row.green for _, result in current.values())


def _key() -> Markup:
    return tag(
        "span",
        sign("pass"),
        " · ",
        sign("known", "known divergences"),
        " · ",
        sign("fail", "broken, and how many"),
        " · ",
        sign("unsupported", "not claimed"),
        " · empty: not run. Each cell leads to its story.",
    )


def _by_chapter(found: Sequence[Backend], current: Mapping[str, Mapping[str, Current]]) -> Markup:
    names = chapters(found)
    heads = [tag("th", tag("span", name), scope="col", class_="tilted") for name in names]
    time = tag("th", "last runs", scope="col")
    head = tag("tr", tag("th", "backend", scope="col"), *heads, time)
    rows = [_row(each, names, current[each.page]) for each in found]
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="matrix board")


def _row(backend: Backend, names: Sequence[str], current: Mapping[str, Current]) -> Markup:
    by_chapter: dict[str, list[Current]] = {name: [] for name in names}
    for each in current.values():
        by_chapter[each[1].chapter].append(each)
    cells = [_chapter(name, some) for name, some in by_chapter.items()]
    title = tag("a", backend.title, href=backend.page)
    partial = tag("span", " partial", class_="dim") if backend.newest.report.get("partial") else ""
    head = tag("th", title, " ", named(backend), partial, scope="row")
    return tag("tr", head, *cells, _time(backend))


def _time(backend: Backend) -> Markup:
    """The last runs of a backend, the newest last, each as the sign of its worst clause."""
    signs = []
    for run in backend.runs[-_RUNS:]:
        found = worst(run.results.values())
        status: Status = found.status if found else "unsupported"
        words = f"{run_title(run)}: {tally(run.results.values())}"
        signs.append(tag("a", glyph(status, words), href=run.page, title=words, data_status=status))
    return tag("td", tag("span", "runs ", class_="narrow"), *signs, class_="runs")


def _chapter(name: str, found: Sequence[Current]) -> Markup:
    results = {each.id: (run, each) for run, each in found}
    chosen = worst(each for _, each in found)
    if chosen is None:
        return tag("td", class_="empty")
    run = results[chosen.id][0]
    words = f"{name}: {tally(each for _, each in found)}"
    red = sum(not each.row.green for _, each in found)
    count, label = f" {red}" if red else "", tag("span", f" {name}", class_="narrow")
    shown = glyph(chosen.status, words)
    link = tag("a", shown, count, label, href=run.link(chosen), title=words)
    return tag("td", link, data_status=chosen.status)


def _broken(found: Sequence[Backend], current: Mapping[str, Mapping[str, Current]]) -> Markup:
    items = [
        tag(
            "li",
            sign(result.status),
            " ",
            tag("a", f"{backend.title} {result.id}", href=run.link(result), class_="clause"),
            " ",
            tag("span", result.message, class_="dim"),
        )
        for backend in found
        for run, result in current[backend.page].values()
        if not result.row.green
    ]
    if not items:
        return Markup("")
    title = tag("h2", f"Broken now: {counted(len(items), 'clause')}", id="broken")
    return tag("section", title, listed(items, _SHOWN, "broken"))


def _changed(found: Sequence[Backend]) -> Markup:
    moved = sorted((each for b in found for each in changes(b)), key=lambda each: not each.worse)
    if not moved:
        return Markup("")
    title = tag("h2", "Changed since the run before", id="changed")
    return tag("section", title, listed(map(change, moved), _SHOWN, "changed"))


def change(moved: Change) -> Markup:
    """Return one change as an item of a list."""
    where = f"{moved.backend.title} {moved.now.id}"
    return tag(
        "li",
        sign(moved.was.status),
        " → ",
        sign(moved.now.status),
        " ",
        tag("a", where, href=moved.run.link(moved.now), class_="clause"),
        " ",
        tag("span", moved.now.message, class_="dim"),
    )


def clauses(found: Sequence[Backend]) -> str:
    """Return the page of every clause on every backend, those first on which they differ."""
    current = {each.page: each.current for each in found}
    ids = ordered({id_: None for each in current.values() for id_ in each})
    return page(
        "Every clause on every backend",
        "clauses.html",
        tag("p", _key(), class_="dim"),
        scrolled(_by_clause(found, ids, current), "Clauses by backends"),
    )


def _by_clause(
    found: Sequence[Backend], ids: Sequence[str], current: Mapping[str, Mapping[str, Current]]
) -> Markup:
    heads = [
        tag("th", tag("a", each.title, href=each.page), scope="col", class_="tilted")
        for each in found
    ]
    head = tag("tr", tag("th", "clause", scope="col"), *heads)
    bodies = []
    for chapter, group in groupby(ids, key=lambda id_: id_.partition(".")[0]):
        width = str(1 + len(found))
        top = tag("tr", tag("th", chapter, colspan=width, scope="rowgroup"), class_="chapter")
        rows = [_clause(id_, found, current) for id_ in group]
        bodies.append(tag("tbody", top, *rows))
    return tag("table", tag("thead", head), *bodies, class_="matrix board")


def _clause(
    id_: str, found: Sequence[Backend], current: Mapping[str, Mapping[str, Current]]
) -> Markup:
    known = CLAUSES.get(id_)
    name = tag("th", id_, scope="row", title=known.statement if known else None)
    return tag("tr", name, *(_cell(each, current[each.page].get(id_)) for each in found))


def _cell(backend: Backend, found: Current | None) -> Markup:
    if found is None:
        return tag("td", class_="empty")
    run, result = found
    words = f"{backend.title}: {result.status}"
    title = f"{words}\n{result.message}" if result.message else words
    link = tag("a", glyph(result.status, words), href=run.link(result), title=title)
    return tag("td", link, data_status=result.status)

"""The page of one backend: its runs, over versions and time, and the clauses that differ."""

from __future__ import annotations

from collections.abc import Sequence

from moe_routing.conformance.report.html.tags import Markup, tag
from moe_routing.conformance.report.site.overview import change
from moe_routing.conformance.report.site.records import Backend, Run, changes, ordered, run_title
from moe_routing.conformance.report.site.shared import (
    bar,
    glyph,
    page,
    scrolled,
    tally,
)
from moe_routing.reference.checks import counted


def backend_page(backend: Backend) -> str:
    """Return the page."""
    newest_first = list(reversed(backend.runs))
    return page(
        backend.title,
        backend.page,
        tag("p", *_about(backend), class_="dim"),
        _runs(backend, newest_first),
        _moved(backend),
        _history(backend, newest_first),
    )


def _about(backend: Backend) -> list[str]:
    wraps = backend.newest.adapter["wraps"]
    behind = f"{wraps['package']} {wraps['version']}, " if wraps["package"] else ""
    return [f"{behind}on {backend.device}; {counted(len(backend.runs), 'run')}, the newest first"]


def _runs(backend: Backend, runs: Sequence[Run]) -> Markup:
    cards = [
        tag(
            "article",
            tag("h2", tag("a", run_title(run), href=run.page)),
            bar(run.results),
            tag("p", tally(run.results.values())),
            tag("p", ", ".join(settings(run))),
        )
        for run in runs
    ]
    return tag("section", *cards, class_="cards")


def settings(run: Run) -> list[str]:
    """Return what a run was made with, in words."""
    report = run.report
    words = [
        f"profile {report['profile']}",
        f"seed {report['seed']}",
        f"suite {report['suite_version']}",
    ]
    spec = report.get("spec_version")
    words += [f"specification {spec}"] if isinstance(spec, str) else []
    return words + (["partial: it was interrupted"] if report.get("partial") else [])


def _moved(backend: Backend) -> Markup:
    moved = changes(backend)
    if not moved:
        return Markup("")
    title = tag("h2", "Changed since the run before")
    return tag("section", title, tag("ul", *map(change, moved), class_="plain"))


def _history(backend: Backend, runs: Sequence[Run]) -> Markup:
    """The clauses that are red anywhere or differ between runs; the others are counted."""
    ids = ordered({id_: None for run in runs for id_ in run.results})
    shown = [id_ for id_ in ids if _worth(id_, runs)]
    same = len(ids) - len(shown)
    words = f"In every run that tried them, {counted(same, 'clause')} passed, or not claimed."
    heads = [tag("th", tag("a", run_title(run), href=run.page), scope="col") for run in runs]
    head = tag("tr", tag("th", "clause", scope="col"), *heads)
    rows = [tag("tr", tag("th", id_, scope="row"), *(_cell(id_, r) for r in runs)) for id_ in shown]
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="matrix history")
    parts = [scrolled(table, "Clauses by runs")] if rows else []
    return tag("section", tag("h2", "Clauses over time"), *parts, tag("p", words, class_="dim"))


def _worth(id_: str, runs: Sequence[Run]) -> bool:
    found = [run.results[id_].status for run in runs if id_ in run.results]
    return len(set(found)) > 1 or found[0] not in ("pass", "unsupported")


def _cell(id_: str, run: Run) -> Markup:
    result = run.results.get(id_)
    if result is None:
        return tag("td", class_="empty")
    inside = [glyph(result.status, result.status), f" {result.status}"]
    link = tag("a", *inside, href=run.link(result), title=result.message or None)
    return tag("td", link, data_status=result.status)

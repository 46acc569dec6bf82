"""The page of one run of a backend: the story of each broken clause, then every clause."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moe_routing.conformance.clauses import CLAUSES, rules_of
from moe_routing.conformance.clauses.rules import cited
from moe_routing.conformance.report.html.drawing import drawn
from moe_routing.conformance.report.html.tags import Markup, in_code, tag
from moe_routing.conformance.report.site.backend import settings
from moe_routing.conformance.report.site.records import Backend, Result, Run, run_title
from moe_routing.conformance.report.site.shared import bar, page, scrolled, sign, tally
from moe_routing.conformance.report.site.views import token_view
from moe_routing.reference.checks import counted


def run_page(backend: Backend, run: Run) -> str:
    """Return the page."""
    red = [each for each in run.results.values() if not each.row.green]
    verdict = counted(len(red), "broken clause") if red else "nothing broken"
    return page(
        f"{backend.title}: {verdict}",
        run.page,
        tag("p", tag("a", backend.title, href=backend.page), f" · {run_title(run)}"),
        tag("p", ", ".join([*settings(run), *_machine(run)]), class_="dim"),
        *(tag("p", words, class_="note") for words in _texts([run.adapter.get("unloaded")])),
        *(tag("p", in_code(f"Behaves like {hint}")) for hint in _texts(run.adapter.get("hints"))),
        bar(run.results),
        tag("p", tally(run.results.values())),
        *(_story(each) for each in red),
        _all(run),
    )


def _texts(value: Any) -> list[str]:
    """Return what is text in a list of a report, of which nothing else is known."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _machine(run: Run) -> list[str]:
    packages = run.report["environment"]["packages"]
    named = [f"{name} {version}" for name, version in packages.items()]
    threads = run.adapter.get("threads")
    return named + ([counted(threads, "thread")] if isinstance(threads, int) else [])


def _story(result: Result) -> Markup:
    known, data = CLAUSES.get(result.id), result.data
    rules = ", ".join(cited(rules_of(result.id))) if known else ""
    command = data.get("reproduce")
    return tag(
        "article",
        tag("h2", sign(result.status), " ", tag("span", result.id, class_="clause")),
        tag("p", in_code(known.statement), class_="statement") if known else "",
        tag("p", result.message, class_="message"),
        *_numbers(result),
        tag("p", tag("b", "Rules: "), rules, class_="rules") if rules else "",
        *(tag("p", words, class_="note") for words in _texts(data.get("unwritten"))),
        *_command(command if isinstance(command, str) else ""),
        tag("p", tag("b", "Why it matters: "), in_code(known.why), class_="why") if known else "",
        id=result.anchor,
        data_status=result.status,
    )


def _numbers(result: Result) -> Iterable[Markup]:
    """Yield where it went wrong: drawn where the report has a token, and as its text."""
    data = result.data
    stage, lines = data.get("stage"), _texts(data.get("details"))
    view = token_view(data.get("token"))
    text = tag("pre", "\n".join(lines), class_="story", tabindex="0")
    if isinstance(stage, str):
        where = "" if view is None else f", token {view.token}"
        yield tag("p", f"Went wrong at: {stage}{where}")
    if view is not None and isinstance(stage, str):
        yield drawn(view, stage)
        yield tag("details", tag("summary", "The same as text"), text)
    elif lines:
        yield text


def _command(command: str) -> list[Markup]:
    if not command:
        return []
    head = tag("p", tag("b", "Reproduce with:"), class_="reproduce")
    return [head, tag("pre", command, class_="command", tabindex="0")]


def _all(run: Run) -> Markup:
    rows = [_row(each) for each in run.results.values()]
    heads = [tag("th", name, scope="col") for name in ("clause", "status", "cases", "note")]
    table = tag(
        "table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="matrix listing"
    )
    words = _untried(run)
    return tag(
        "section",
        tag("h2", "Every clause"),
        scrolled(table, "Every clause of this run"),
        tag("p", words, class_="dim") if words else "",
    )


def _row(result: Result) -> Markup:
    data = result.data
    place = result.anchor if result.row.green else None
    name = tag("a", result.id, href=f"#{result.anchor}") if place is None else result.id
    return tag(
        "tr",
        tag("th", name, scope="row"),
        tag("td", sign(result.status), data_status=result.status),
        tag("td", str(data["constructed"] + data["examples"])),
        tag("td", _note(result)),
        id=place,
    )


def _note(result: Result) -> Markup:
    """Return why a clause is known, in the words of the list, or else its message."""
    reasons = result.data.get("divergences")
    if result.status == "known" and isinstance(reasons, dict) and reasons:
        return in_code("; ".join(f"{name}: {words}" for name, words in reasons.items()))
    return tag("span", result.message)


def _untried(run: Run) -> str:
    untried = run.adapter.get("untried")
    if not isinstance(untried, dict) or not untried:
        return ""
    return f"Not tried, since the adapter has no such methods: {', '.join(map(str, untried))}."

"""The HTML page of a run: one file, with nothing to fetch, readable without its script."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import get_args

from moe_routing.conformance.checking.results import AdapterResult, RunResult
from moe_routing.conformance.checking.status import Status
from moe_routing.conformance.report.html.matrix import filters, matrix
from moe_routing.conformance.report.html.story import story
from moe_routing.conformance.report.html.tags import Markup, in_code, joined, tag
from moe_routing.conformance.report.text import (
    broken,
    counts,
    headline,
    likenesses,
    notes,
    verdict,
)
from moe_routing.conformance.run.environment import suite_version
from moe_routing.reference import SPEC_VERSION
from moe_routing.reference.checks import counted

__all__ = ["html_page"]


def html_page(run: RunResult) -> str:
    """Return the page of a run."""
    style, script = (_own(name) for name in ("page.css", "page.js"))
    body = tag(
        "body",
        tag("a", "Skip to what is broken", href="#broken", class_="skip"),
        _header(run),
        tag("main", *_sections(run)),
        _footer(run),
        tag("script", script),
    )
    return "<!DOCTYPE html>\n" + tag("html", _head(run, style, script), body, lang="en") + "\n"


def _own(name: str) -> Markup:
    """Return a file of this package as markup: it is ours, and ends neither style nor script."""
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _head(run: RunResult, style: Markup, script: Markup) -> Markup:
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"moe-routing: {verdict(run)}"),
        tag("style", style),
    )


def _hash(content: str) -> str:
    """Return what lets a browser run this inline content and no other."""
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _header(run: RunResult) -> Markup:
    drawn = f"{counted(run.max_examples, 'case')} drawn per clause"
    settings = f"profile {run.profile}, seed {run.seed}, {drawn}"
    return tag(
        "header",
        tag(
            "div",
            tag("p", "moe-routing conformance", class_="dim"),
            tag("h1", verdict(run).capitalize()),
            tag("p", f"specification {SPEC_VERSION}, {settings}", class_="dim"),
            *(tag("p", n, " ", in_code(words), class_="note") for n, words in likenesses(run)),
            *(tag("p", note, class_="note") for note in notes(run)),
        ),
        tag("button", "Dark", type="button", id="theme", hidden=True),
        data_color="red" if run.exit_code else "green",
    )


def _sections(run: RunResult) -> list[Markup]:
    return [
        tag("section", *(_card(adapter) for adapter in run.adapters), class_="cards"),
        tag(
            "section",
            tag("h2", "Every clause", id="matrix", tabindex="-1"),
            filters(run),
            matrix(run),
        ),
        _broken(run),
        *_reasons(run),
    ]


def _card(adapter: AdapterResult) -> Markup:
    """One adapter: its name, a bar of its statuses, and their counts."""
    parts, total, x = [], len(adapter.clauses) or 1, 0.0
    for name in get_args(Status):
        width = 100 * sum(each.status == name for each in adapter.clauses) / total
        parts.append(
            tag("rect", x=f"{x:.3f}%", width=f"{width:.3f}%", height="8", data_status=name)
        )
        x += width
    return tag(
        "article",
        tag("h2", headline(adapter)),
        tag("svg", *parts, class_="share", height="8", aria_hidden="true"),
        tag("p", counts(adapter)),
    )


def _broken(run: RunResult) -> Markup:
    stories = [
        story(number, adapter, clause)
        for number, adapter in enumerate(run.adapters)
        for clause in broken(adapter)
    ]
    return tag(
        "section",
        tag("h2", "What is broken", id="broken", tabindex="-1"),
        *(stories or [tag("p", f"Nothing: {verdict(run)}.")]),
    )


def _reasons(run: RunResult) -> list[Markup]:
    """Why a clause is known, or unsupported, by adapter."""
    found = []
    for title, wanted in (("Known divergences", "known"), ("Unsupported", "unsupported")):
        rows = [
            tag(
                "li",
                tag("span", clause.id, class_="clause"),
                " ",
                tag("span", f"{adapter.name}: ", class_="dim"),
                _reason(clause.divergences if wanted == "known" else {}, clause.message),
            )
            for adapter in run.adapters
            for clause in adapter.clauses
            if clause.status == wanted
        ]
        if rows:
            summary = tag("summary", tag("h2", title), tag("span", f" {len(rows)}", class_="dim"))
            found.append(tag("details", summary, tag("ul", *rows, class_="reasons")))
    return found


def _reason(divergences: dict[str, str], message: str) -> Markup:
    if not divergences:
        return joined([message])
    named = [f"{name}: {divergences[name]}" for name in message.split("; ") if name in divergences]
    return in_code("; ".join(named) or message)


def _footer(run: RunResult) -> Markup:
    facts = {"moe-routing-conformance": suite_version(), **run.environment}
    rows = [
        joined([tag("dt", str(name)), tag("dd", _fact(value))])
        for name, value in facts.items()
        if value is not None
    ]
    return tag("footer", tag("details", tag("summary", "Environment"), tag("dl", *rows)))


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return str(value)

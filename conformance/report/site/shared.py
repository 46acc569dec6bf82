"""What all pages of the site share: the frame, statuses as signs, bars of counts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import get_args

from moe_routing.conformance.checking.status import STATUSES, Status
from moe_routing.conformance.report.html.tags import Markup, joined, tag
from moe_routing.conformance.report.site.records import Backend, Result

MARK = '<meta name="generator" content="moe-routing site">'
"""What every page of a site has, so that no other file is written over."""

_HTML = "moe_routing.conformance.report.html"


def page(title: str, here: str, *sections: str) -> str:
    """Return one page; ``here`` is its file, which the navigation does not link to."""
    style = Markup(_own(_HTML, "page.css") + _own(__package__, "site.css"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Markup(MARK),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{title} · moe-routing"),
        tag("style", style),
    )
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        tag("nav", *_links(here), aria_label="Pages"),
        tag("main", tag("h1", title), *sections, id="content", tabindex="-1"),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def _own(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _links(here: str) -> list[Markup]:
    named = {"index.html": "Backends", "clauses.html": "Clauses"}
    return [
        tag("a", words, href=file, aria_current="page" if file == here else None)
        for file, words in named.items()
    ]


def sign(status: Status, words: str = "") -> Markup:
    """Return a status as its coloured sign, with its word or others."""
    glyph = tag("span", STATUSES[status].glyph, aria_hidden="true")
    return tag("span", glyph, " ", words or status, class_="status", data_status=status)


def glyph(status: Status, name: str) -> Markup:
    """Return the sign alone; ``name`` is what readers of the screen hear."""
    return tag("span", STATUSES[status].glyph, class_="status", role="img", aria_label=name)


def worst(results: Iterable[Result]) -> Result | None:
    """Return the result that says most of several: the reddest, else what held."""
    found = list(results)
    red = [each for each in found if not each.row.green]
    if red:
        return max(red, key=lambda each: each.row.rank)
    order: tuple[Status, ...] = ("known", "pass", "unsupported")
    return min(found, key=lambda each: order.index(each.status), default=None)


def bar(results: Mapping[str, Result]) -> Markup:
    """Draw the statuses of a run as a bar."""
    total, x, parts = len(results) or 1, 0.0, []
    for name in get_args(Status):
        width = 100 * sum(each.status == name for each in results.values()) / total
        parts.append(
            tag("rect", x=f"{x:.3f}%", width=f"{width:.3f}%", height="8", data_status=name)
        )
        x += width
    return tag("svg", *parts, class_="share", height="8", aria_hidden="true")


def tally(results: Iterable[Result]) -> str:
    """Return how many results have which status."""
    found = [each.status for each in results]
    words = [f"{found.count(s)} {row.counted}" for s, row in STATUSES.items() if s in found]
    return ", ".join(words) or "nothing was run"


def named(backend: Backend) -> Markup:
    """Return the package and the version that a backend's newest run was of."""
    package = backend.newest.adapter["wraps"]["package"]
    words = f"{package} {backend.newest.version}" if package else ""
    return tag("span", words, class_="dim") if words else Markup("")


def scrolled(table: Markup, label: str) -> Markup:
    """Return a table that scrolls by itself where the screen is narrow."""
    return tag("div", table, class_="scrolls", role="region", aria_label=label, tabindex="0")


def listed(items: Iterable[Markup], most: int, more: str) -> Markup:
    """Return a list of which all but the first are folded away."""
    found = list(items)
    first = tag("ul", *found[:most], class_="plain")
    if len(found) <= most:
        return first
    rest = tag("ul", *found[most:], class_="plain")
    return joined([first, tag("details", tag("summary", f"{len(found) - most} more {more}"), rest)])

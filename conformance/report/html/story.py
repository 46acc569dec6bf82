"""The story of one broken clause, as an article of the page."""

from __future__ import annotations

import re

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult
from moe_routing.conformance.checking.status import STATUSES
from moe_routing.conformance.clauses import CLAUSES, rules_of
from moe_routing.conformance.clauses.rules import cited
from moe_routing.conformance.report.html.drawing import drawn
from moe_routing.conformance.report.html.tags import Markup, in_code, tag
from moe_routing.conformance.report.text import reproduce


def anchor(number: int, clause: ClauseResult) -> str:
    """Return the id of a story: the adapter's place in the run, and the clause."""
    return f"story-{number}-{re.sub('[^a-z0-9]', '-', clause.id)}"


def status(clause: ClauseResult) -> Markup:
    """Return a status as a coloured word with its sign."""
    sign = tag("span", STATUSES[clause.status].glyph, aria_hidden="true")
    return tag("span", sign, " ", clause.status, class_="status", data_status=clause.status)


def story(number: int, adapter: AdapterResult, clause: ClauseResult) -> Markup:
    """Format one broken clause: its statement, what went wrong, the rules, how to repeat it."""
    name = anchor(number, clause)
    known = CLAUSES.get(clause.id)
    return tag(
        "article",
        tag(
            "h3",
            status(clause),
            " ",
            tag("span", clause.id, class_="clause"),
            " ",
            tag("span", f"{adapter.name} · {clause.level}", class_="dim"),
            id=f"{name}-title",
        ),
        tag("p", in_code(known.statement), class_="statement") if known else "",
        tag("p", clause.message, class_="message"),
        _numbers(clause),
        _rules(clause),
        *(tag("p", words, class_="note") for words in clause.unwritten),
        tag("p", tag("b", "Reproduce with:"), class_="reproduce"),
        tag("pre", reproduce(adapter, clause), class_="command", tabindex="0"),
        tag("p", tag("b", "Why it matters: "), in_code(known.why), class_="why") if known else "",
        tag("p", tag("a", "Back to the matrix", href="#matrix"), class_="back"),
        id=name,
        tabindex="-1",
        aria_labelledby=f"{name}-title",
        data_status=clause.status,
        data_chapter=clause.chapter,
        data_text=f"{clause.id} {adapter.name} {clause.message}".lower(),
    )


def _rules(clause: ClauseResult) -> Markup:
    cites = ", ".join(cited(rules_of(clause.id)))
    return tag("p", tag("b", "Rules: "), cites, class_="rules") if cites else Markup("")


def _numbers(clause: ClauseResult) -> Markup:
    failure = clause.failure
    text = tag("pre", "\n".join(clause.story), class_="story", tabindex="0")
    if failure is None:
        return text if clause.story else Markup("")
    where = "" if failure.token is None else f", token {failure.token}"
    begins = "".join(f"; {each.words}" for each in clause.onsets)
    stage = tag("p", f"Went wrong at: {failure.stage}{where}{begins}")
    if failure.view is None:
        return tag("div", stage, text if clause.story else "")
    same = tag("details", tag("summary", "The same as text"), text)
    return tag("div", stage, drawn(failure.view, failure.stage), same)

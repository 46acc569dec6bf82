"""Strips: a bar, or a band with a cut and an answer, drawn as wide as a cell."""

from __future__ import annotations

from moe_routing.conformance.explain.numbers import show, span
from moe_routing.conformance.explain.token_view import Span
from moe_routing.conformance.report.html.scale import Scale
from moe_routing.conformance.report.html.tags import Markup, joined, tag


def bar(scale: Scale, value: float) -> Markup:
    """Draw a value as a bar from zero."""
    low, high = min(0.0, value), max(0.0, value)
    bar = tag("rect", x=scale.percent(low), y="5", width=scale.width(low, high), height="10")
    return _strip(bar, f"bar of {show(value)}")


def band(scale: Scale, band: Span, cut: float | None, answer: float | None = None) -> Markup:
    """Draw what is permitted as a band, with the cut and the answer where there are any."""
    low, high = band
    parts = [
        _line("track", "0%", "100%", "10", "10"),
        _line(
            "band" if answer is None else "band right",
            scale.percent(low),
            scale.percent(high),
            "10",
            "10",
        ),
    ]
    beyond = scale.beyond(low, high)
    if beyond is not None:
        parts[1] = _arrow(beyond)
    if cut is not None:
        parts.append(_line("cut", scale.percent(cut), scale.percent(cut), "0", "20"))
    if answer is not None:
        parts.append(tag("circle", cx=scale.percent(answer), cy="10", r="4.5", class_="answer"))
    words = f"permitted {span(band)}"
    words += "" if cut is None else f"; the cut is {show(cut)}"
    words += "" if answer is None else f"; answered {show(answer)}"
    return _strip(joined(parts), words)


def _line(class_: str, x1: str, x2: str, y1: str, y2: str) -> Markup:
    return tag("line", class_=class_, x1=x1, x2=x2, y1=y1, y2=y2)


def _arrow(end: str) -> Markup:
    sign, x, anchor = ("◀", "0%", "start") if end == "left" else ("▶", "100%", "end")
    return tag("text", sign, x=x, y="14", text_anchor=anchor, class_="beyond")


def _strip(inside: Markup, words: str) -> Markup:
    """A drawing as wide as its cell; screen readers get ``words``."""
    return tag("svg", inside, class_="strip", role="img", aria_label=words, height="20")


def key(class_: str, words: str) -> Markup:
    """Draw a mark with what it means."""
    line = (
        _line(class_, "50%", "50%", "2", "18")
        if class_ == "cut"
        else _line(class_, "10%", "90%", "10", "10")
    )
    mark = tag("svg", line, class_="key", width="24", height="20", aria_hidden="true")
    return tag("span", mark, words, class_="dim")

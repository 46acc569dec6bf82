"""The HTML page as text: self-contained, escaped, and every story reachable."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.report.html import html_page
from moe_routing.conformance.report.html.scale import Scale
from moe_routing.conformance.report.html.tags import Markup, tag, text
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.text import broken


class Parsed(HTMLParser):
    """The elements of a page, and the text of each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attrs)))
        if name not in ("meta", "link", "input", "br"):
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name, "elements should nest"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.elements if attribute in attrs]


@pytest.fixture(params=["wrong_run", "every_status", "nothing_checked"])
def run(request: pytest.FixtureRequest) -> RunResult:
    return request.getfixturevalue(request.param)


def test_nests_and_closes_every_element(run: RunResult) -> None:
    assert Parsed(html_page(run)).open == []


def test_fetches_nothing(run: RunResult) -> None:
    page = Parsed(html_page(run))
    assert not page.values("src")
    outward = [href for href in page.values("href") if not href.startswith(("#", "data:,"))]
    assert not outward
    styles = "".join(data for name, data in page.texts if name == "style")
    assert not re.findall(r"url\(|@import", styles)


def test_forbids_the_browser_to_fetch_or_to_run_anything_else(run: RunResult) -> None:
    (policy,) = (
        attrs["content"] or ""
        for name, attrs in Parsed(html_page(run)).elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert len(re.findall(r"script-src 'sha256-[\w+/=]{44}';", policy)) == 1
    assert "unsafe" not in policy


def test_has_one_script_and_no_handler_or_style_in_an_attribute(run: RunResult) -> None:
    page = Parsed(html_page(run))
    assert [name for name, _ in page.elements].count("script") == 1
    names = {name for _, attrs in page.elements for name in attrs}
    assert not {name for name in names if name.startswith("on") or name == "style"}


def test_names_are_unique_and_every_link_has_its_end(run: RunResult) -> None:
    page = Parsed(html_page(run))
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    links = {href[1:] for href in page.values("href") if href.startswith("#")}
    assert links <= set(ids)
    named = {word for value in page.values("aria-labelledby") for word in value.split()}
    assert named <= set(ids)


def test_shows_every_broken_clause_with_its_command(run: RunResult) -> None:
    page = Parsed(html_page(run))
    red = sum(len(broken(adapter)) for adapter in run.adapters)
    stories = [attrs for name, attrs in page.elements if name == "article" and "id" in attrs]
    assert len(stories) == red
    commands = [data for name, data in page.texts if name == "pre" and "moe-routing " in data]
    assert len(commands) == red


def test_draws_every_expert_of_a_failing_token(wrong_run: RunResult) -> None:
    page = html_page(wrong_run)
    views = [
        each.failure.view
        for adapter in wrong_run.adapters
        for each in broken(adapter)
        if each.failure is not None and each.failure.view is not None
    ]
    assert views
    assert page.count('class="cut"') >= sum(len(view.experts) for view in views if view.cut)
    assert page.count("chosen, but not due") == sum(
        expert.answered and not expert.due for view in views for expert in view.experts
    )


def test_shows_hostile_text_literally(every_status: RunResult, hostile: str) -> None:
    page = html_page(every_status)
    assert page.count("</script>") == 1
    assert "\x1b" not in page
    heads = [data for name, data in Parsed(page).texts if name == "th"]
    assert printable(hostile) in heads


def test_numbers_beyond_all_bounds_are_drawn_somewhere(wrong_run: RunResult) -> None:
    adapter = wrong_run.adapters[1]
    clause = next(each for each in broken(adapter) if each.failure and each.failure.view)
    view = clause.failure.view
    wild = [
        replace(view.experts[0], score=score, competing=band, own_logit=score)
        for score, band in [
            (math.inf, (-math.inf, math.inf)),
            (-math.inf, (-math.inf, -math.inf)),
            (math.nan, (math.nan, math.nan)),
            (5e-324, (-1e308, 1e308)),
        ]
    ]
    for stage in ("logits", "selection", "weights"):
        failure = replace(clause.failure, stage=stage, view=replace(view, experts=tuple(wild)))
        changed = replace(adapter, clauses=(replace(clause, failure=failure),))
        page = html_page(replace(wrong_run, adapters=(changed,)))
        lengths = re.findall(r' (?:x|x1|x2|cx|width)="([^"]*)%"', page)
        assert lengths
        assert all(0.0 <= float(length) <= 100.0 for length in lengths)


class TestTags:
    def test_escape_all_but_markup(self) -> None:
        assert tag("p", "a<b", Markup("<b>"), title='"<') == '<p title="&quot;&lt;">a&lt;b<b></p>'

    def test_escape_markup_in_an_attribute(self) -> None:
        assert tag("p", title=Markup('"><script>')) == '<p title="&quot;&gt;&lt;script&gt;"></p>'

    def test_leave_out_what_is_not_given(self) -> None:
        assert tag("a", class_="x", hidden=True, href=None, data_a=False) == (
            '<a class="x" hidden></a>'
        )

    def test_text_shows_what_cannot_be_printed(self) -> None:
        assert text("\x00<") == "\\x00&lt;"


class TestScale:
    def test_has_a_margin_at_both_ends(self) -> None:
        scale = Scale.around([1.0, 3.0])
        assert 0.0 < scale.share(1.0) < 0.2
        assert 0.8 < scale.share(3.0) < 1.0

    def test_of_one_value_has_it_in_the_middle(self) -> None:
        assert Scale.around([7.0]).share(7.0) == pytest.approx(0.5)
        assert Scale.around([0.0]).share(0.0) == pytest.approx(0.5)

    def test_of_bars_begins_at_zero(self) -> None:
        assert Scale.from_zero([2.0, 4.0]).share(2.0) == 0.5
        assert Scale.from_zero([-2.0, 2.0]).share(0.0) == 0.5
        assert Scale.from_zero([]).share(0.0) == 0.0

    def test_shows_which_end_a_band_is_beyond(self) -> None:
        scale = Scale.around([1.0, 2.0])
        assert scale.beyond(-5.0, -4.0) == "left"
        assert scale.beyond(8.0, 9.0) == "right"
        assert scale.beyond(-5.0, 9.0) is None

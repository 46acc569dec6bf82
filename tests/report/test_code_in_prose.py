"""What stands between backticks in prose of ours is code in every form, and shows no backtick."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from moe_routing.conformance.checking.results import AdapterResult, ClauseResult, RunResult
from moe_routing.conformance.report.html import html_page
from moe_routing.conformance.report.markdown import markdown
from moe_routing.conformance.report.report import report
from moe_routing.conformance.zoo.nearest import Likeness

HINT = Likeness(mutant="scale-twice", family="M22", cases=4, passed=9).words
REST = HINT.partition("`scale-twice`")[2]
LISTED = ClauseResult(
    id="weights.scale",
    level="MUST",
    chapter="weights",
    status="known",
    message="listed",
    divergences={"listed": "`if factor:` takes 0 for none, `x < y` for <b>"},
)
BEGUN = AdapterResult(
    name="my`router<i>",
    package=None,
    version=None,
    numerics=[],
    clauses=(LISTED,),
    reference="my.py:R",
    hints=(HINT,),
)
RUN = RunResult(profile="ci", seed=0, max_examples=9, environment={}, adapters=(BEGUN,))


def test_a_hint_is_code_in_markdown() -> None:
    assert f"\n- my\\`router\\<i\\> behaves like `scale-twice`{REST}\n" in markdown(RUN)


def test_a_hint_is_code_in_html() -> None:
    words = f"behaves like <code>scale-twice</code>{REST}"
    assert f'<p class="note">my`router&lt;i&gt; {words}</p>' in html_page(RUN)


def test_so_is_the_reason_of_a_known_divergence() -> None:
    words = "listed: <code>if factor:</code> takes 0 for none, <code>x &lt; y</code> for &lt;b&gt;"
    assert words in html_page(RUN)


def test_a_form_for_programs_has_it_as_it_is() -> None:
    assert report(RUN)["adapters"][0]["hints"] == [HINT]


@pytest.mark.parametrize("hint", ["behaves like `a", "a ` b ` c `", "``", "`a\nb`", "`\x1b`"])
def test_whatever_stands_there_leaves_the_page_whole(hint: str) -> None:
    run = replace(RUN, adapters=(replace(BEGUN, hints=(hint,)),))
    (line,) = (line for line in markdown(run).splitlines() if line.startswith("- my\\`"))
    page = html_page(run)
    assert page.count("<code>") == page.count("</code>")
    assert "\x1b" not in page + line
    bare = re.sub(r"\\`", "", line)
    assert bare.count("`") % 2 == 0


def test_one_case_is_one() -> None:
    for shown in (markdown(replace(RUN, max_examples=1)), html_page(replace(RUN, max_examples=1))):
        assert "1 case drawn per clause" in shown

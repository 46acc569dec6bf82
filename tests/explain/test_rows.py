"""The rows of a story: of many, those that matter, and how many are left out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from stories import PLAIN, story_of

from moe_routing.conformance.explain.cut import cut_words
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.explain.rows import Gap, expert_rows, group_rows, slot_rows
from moe_routing.conformance.explain.token_view import SHOWN, ExpertView
from moe_routing.conformance.report.html.drawing import drawn
from moe_routing.reference import Groups

K = 32
RAMP = np.arange(256.0)[None] / 16.0
BEST = [*range(255, 255 - K, -1)]


def wrong(ids: list[int], **more: Any) -> Failure:
    return story_of(RAMP, ids=[ids], weights=[[1.0 / K] * K], top_k=K, **more)


def table(found: Failure, name: str) -> list[str]:
    """The lines of a table of the story, without its head."""
    lines = list(found.details)
    start = next(i for i, line in enumerate(lines) if line.startswith(name)) + 1
    stop = next((i for i in range(start, len(lines)) if lines[i][0] != " "), len(lines))
    return lines[start:stop]


def ids_in(lines: list[str]) -> list[int]:
    rows = (line.replace("*", " ").split() for line in lines)
    return [int(row[0]) for row in rows if row[0].isdecimal()]


def left_out(lines: list[str]) -> int:
    return sum(int(n) for line in lines for n in re.findall(r"\.\.\. (\d+) more", line))


@pytest.mark.parametrize("name", ["logits", "selection"])
def test_of_many_experts_those_at_the_cut_and_the_wrong_ones_are_shown(name: str) -> None:
    found = wrong([*BEST[:-3], 3, 4, 5])
    lines = table(found, name)
    assert {3, 4, 5, 226, 225, 224, 227} <= {*ids_in(lines)}
    assert len(ids_in(lines)) <= SHOWN
    assert len(ids_in(lines)) + left_out(lines) == 256, "what is left out is counted"
    assert any(line.split()[-1] == "chosen" for line in lines), "and so are the chosen of them"


def test_the_two_experts_that_the_cut_names_are_among_them() -> None:
    found = wrong([*range(K)])
    best, weakest = (int(n) for n in re.findall(r"expert (\d+)", " ".join(found.details)))
    assert {best, weakest} <= {*ids_in(table(found, "selection"))}


def test_of_many_weights_the_wrong_ones_are_shown() -> None:
    found = story_of(RAMP, top_k=K, weights=lambda right: right + 0.5 * (np.arange(K) == 29))
    lines = table(found, "weights")
    assert BEST[29] in ids_in(lines)
    assert left_out(lines) == K - len(ids_in(lines)) == K - SHOWN


def test_of_many_logits_the_wrong_one_is_shown_though_it_was_not_chosen() -> None:
    own = RAMP + (np.arange(256) == 7)
    found = story_of(RAMP, own=own, top_k=2)
    assert 7 in ids_in(table(found, "logits"))


def test_of_many_groups_those_at_the_cut_are_shown() -> None:
    groups = Groups(count=64, kept=30)
    found = story_of(RAMP, ids=[[0, 255]], weights=[[0.5, 0.5]], top_k=2, groups=groups, **PLAIN)
    (line,) = [line for line in found.details if line.startswith("groups")]
    named = {int(n) for n in re.findall(r"(\d+): ", line)}
    assert {0, 33, 34} <= named, "the one chosen from, the last that is kept, the first that is not"
    assert len(named) + left_out([line.partition(";")[0]]) == 64
    assert line.endswith("... 18 more]"), "the kept ones are many, too"


def test_a_gap_of_one_row_is_not_worth_a_line() -> None:
    found = story_of([[1.0, 0.5, 0.25]], weights=[[0.9, 0.1]], top_k=2)
    assert ids_in(table(found, "logits")) == [0, 1, 2]


def test_of_many_ids_those_that_differ_are_shown() -> None:
    found = wrong([*BEST[:-3], 3, 4, 5])
    assert found.summary.startswith("expert_ids[0] has [3, 4, 5], but ")
    assert found.summary.endswith("; the reference selects [226, 225, 224] instead")
    assert found.details[1].startswith("answered  experts [255, 254, ")
    assert ", ... 20 more] with weights [" in found.details[1]
    few = story_of(RAMP, ids=[[0, 1]], weights=[[0.5, 0.5]], top_k=2)
    assert few.summary.startswith("expert_ids[0]=[0, 1], but ")


def test_the_page_draws_the_rows_of_the_story() -> None:
    found = wrong([*BEST[:-3], 3, 4, 5])
    assert found.view is not None
    page = str(drawn(found.view, "selection"))
    rows = expert_rows(found.view)
    shown = [each.id for each in rows if isinstance(each, ExpertView)]
    drawn_ids = re.findall(r'class="id">(\d+)<', page)
    assert [int(n) for n in drawn_ids] == shown
    assert all(gap.words in page for gap in rows if isinstance(gap, Gap))
    assert cut_words(found.view)[1] in page, "by how much the cut was missed"


def test_rows_are_in_order_and_count_all() -> None:
    groups = Groups(count=64, kept=30)
    found = story_of(
        RAMP, ids=[[*range(K)]], weights=[[1 / K] * K], top_k=K, groups=groups, **PLAIN
    )
    assert found.view is not None
    for rows, size in (
        (expert_rows(found.view), 256),
        (group_rows(found.view), 64),
        (slot_rows(found.view), K),
    ):
        gaps = [each for each in rows if isinstance(each, Gap)]
        assert len(rows) - len(gaps) + sum(gap.count for gap in gaps) == size
        assert len(rows) - len(gaps) >= SHOWN

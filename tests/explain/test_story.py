"""The story of a failing token: every stage, what was permitted, and by how much it was missed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stories import PLAIN, failure_on, story_of

from moe_routing.conformance.explain.numbers import missed
from moe_routing.reference import Groups, RmsNorm, RouterConfig, RouterInputs


def headings(details: tuple[str, ...]) -> list[str]:
    return [line.split()[0] for line in details[3:] if not line.startswith(" ")]


def test_shows_every_stage_in_the_order_of_the_pipeline() -> None:
    found = story_of([[3.0, 2.0, 1.0, 0.0]], ids=[[2]], top_k=1, groups=Groups(count=2, kept=1))
    assert headings(found.details) == ["logits", "groups", "selection", "cut", "weights"]
    assert found.details[0].startswith("token 0 of T=1 (H=4 E=4 K=1, float32): groups=Groups(")
    assert found.details[1].startswith("answered  experts [2] with weights ")
    assert found.details[2].startswith("reference experts [0] with weights ")


def test_shows_by_how_much_a_logit_missed_its_allowance() -> None:
    found = story_of([[3.0, 2.0]], own=[[3.5, 2.0]], top_k=1)
    (line,) = [line for line in found.details if " missed by " in line]
    assert line.split()[:4] == ["*", "0", "3.5", "3"], "expert, logit, permitted logit"
    assert line.endswith("missed by 0.5, nothing is allowed"), "small integers are exact"


def test_shows_by_how_much_the_cut_was_missed() -> None:
    found = story_of([[4.0, 1.0, 3.0]], ids=[[0, 1]], weights=[[0.5, 0.5]], top_k=2, **PLAIN)
    first = next(i for i, line in enumerate(found.details) if line.startswith("cut"))
    assert found.details[first] == "cut       expert 2, left out, competes with 3 or more;"
    assert found.details[first + 1].strip() == "expert 1, chosen, with 1 or less: missed by 2"


def test_shows_the_selection_bias_next_to_the_score() -> None:
    found = story_of(
        [[0.0, 0.0]], arrays={"selection_bias": [0.25, 7.0]}, ids=[[0]], top_k=1, score="sigmoid"
    )
    rows = [line.split() for line in found.details if line.startswith(" " * 10)]
    assert ["1", "0.5", "7"] in [row[:3] for row in rows]
    assert ["*", "0", "0.5", "0.25"] in [row[:4] for row in rows]


def test_shows_how_far_an_excluded_group_is_from_being_kept() -> None:
    found = story_of(
        [[3.0, 2.0, 1.0, 0.5]], ids=[[2]], top_k=1, groups=Groups(count=2, kept=1), **PLAIN
    )
    assert any(
        line.strip() == "group 1 scores 1.5, group 0, kept, 5: missed by 3.5"
        for line in found.details
    ), found.details


def test_shows_by_how_many_allowances_a_weight_missed() -> None:
    found = story_of([[1.0, 0.0]], weights=[[0.9]], top_k=1)
    (line,) = [line for line in found.details if " missed by " in line]
    assert line.split()[:2] == ["0", "0.9"]
    assert "times the allowance" in line


def test_says_that_undefined_scores_are_not_judged() -> None:
    found = story_of([[np.nan] * 3], ids=[[1, 1]], weights=[[1.0, 1.0]], top_k=2)
    assert found.details[-1] == "this token's scores are undefined: only its ids are judged"


def test_an_id_that_is_no_expert_is_shown() -> None:
    found = story_of([[1.0, 0.0]], ids=[[7]], weights=[[1.0]], top_k=1)
    assert found.details[-1].split() == ["7", "1", "no", "such", "expert"]


def test_of_many_experts_only_those_that_matter() -> None:
    logits = np.arange(256.0)[None] / 16.0
    found = story_of(logits, ids=[[0, 1]], weights=[[0.5, 0.5]], top_k=2)
    assert len(found.details) <= 20
    assert sum("... 252 more" in line for line in found.details) == 2
    assert max(len(line) for line in found.details[3:]) <= 120


def cut(ids: list[list[int]], rows: list[list[float]], **more: object) -> str:
    """What the story says of the cut, in one line."""
    weights = [[0.9] * len(row) for row in ids]
    found = story_of(rows, ids=ids, weights=weights, top_k=len(ids[0]), **more)
    lines = [*found.details]
    start = next(i for i, line in enumerate(lines) if line.startswith("cut"))
    stop = next(i for i, line in enumerate(lines) if line.startswith("weights"))
    return " ".join(" ".join(lines[start:stop]).split()[1:])


ROWS = [[1.0, 0.0, 0.5]]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([[0, 0]], "expert 0 was chosen 2 times; expert 2 was left out"),
        ([[0, 7]], "7 is no expert; expert 2 was left out"),
        ([[-1, 7]], "[-1, 7] are no experts; experts [0, 2] were left out"),
        ([[1, 1]], "expert 1 was chosen 2 times; experts [0, 2] were left out"),
    ],
)
def test_ids_that_are_repeated_or_no_experts_are_no_near_tie(
    ids: list[list[int]], words: str
) -> None:
    assert cut(ids, ROWS) == words


def test_ids_that_are_repeated_and_no_experts_are_named() -> None:
    assert cut([[0, 0, 9]], ROWS) == (
        "9 is no expert; expert 0 was chosen 2 times; experts [2, 1] were left out"
    )


def test_a_near_tie_is_called_one() -> None:
    near = [[1.0, 1.0 + 2.0**-23]]
    assert cut([[0]], near).endswith("or less: a near tie")
    assert "missed by" in cut([[0]], [[1.0, 1.0 + 2.0**-12]])


def test_groups_within_rounding_of_each_other_are_a_near_tie() -> None:
    tied = [[2.0, 1.0, 1.0, 2.0]]
    assert cut([[3]], tied, groups=Groups(count=2, kept=1), **PLAIN).endswith(": a near tie")


def test_what_no_groups_permit_is_no_near_tie() -> None:
    tied = [[2.0, 1.0, 2.0, 1.0]]
    words = cut([[0, 2]], tied, groups=Groups(count=2, kept=1), **PLAIN)
    assert words.endswith("no groups let them win together")


def test_the_header_says_where_the_selection_bias_is() -> None:
    arrays = {"selection_bias": [0.25, 7.0], "selection_bias_on": "block"}
    found = story_of([[0.0, 0.0]], arrays=arrays, ids=[[0]], top_k=1, score="sigmoid")
    assert found.details[0].endswith("score='sigmoid', with selection_bias on the block")


def test_a_normed_input_is_shown_before_and_after() -> None:
    hidden = np.arange(64.0, dtype=np.float32)[None]
    inputs = RouterInputs(hidden=hidden, gate_weight=np.eye(3, 64, dtype=np.float32))
    config = RouterConfig(num_experts=3, top_k=1, input_norm=RmsNorm())
    found = failure_on(config, inputs, weights=[[0.9]])
    assert found.details[3] == "hidden    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... 52 more]"
    assert found.details[4].startswith("normed    [0, 0.00342")
    assert found.details[4].endswith(", ... 52 more]")
    assert not any(
        line.startswith("normed") for line in story_of([[1.0, 0.0]], ids=[[1]], top_k=1).details
    )


@pytest.mark.parametrize(
    ("value", "permitted", "words"),
    [
        (1.0, (0.0, 2.0), ""),
        (2.5, (0.0, 2.0), "  missed by 0.5, 0.5 times the allowance"),
        (-3.0, (0.0, 2.0), "  missed by 3, 3 times the allowance"),
        (1.5, (1.0, 1.0), "  missed by 0.5, nothing is allowed"),
        (np.nan, (0.0, 1.0), "  missed"),
        (np.inf, (0.0, 1.0), "  missed"),
        (0.0, (np.nan, np.nan), ""),
    ],
)
def test_missed_is_in_allowances(value: float, permitted: tuple[float, float], words: str) -> None:
    assert missed(value, permitted) == words


def test_a_failure_is_a_value() -> None:
    one = story_of([[1.0, 0.0]], weights=[[0.9]], top_k=1)
    assert one == story_of([[1.0, 0.0]], weights=[[0.9]], top_k=1)
    assert one != replace(one, stage="logits")

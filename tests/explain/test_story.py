"""The story of a failing token: every stage, what was permitted, and by how much it was missed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.explain.failure import Failure, first_failure
from moe_routing.conformance.explain.story import missed
from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.implementations import Numerics
from moe_routing.reference import Groups, RouterConfig, RouterInputs, route

PLAIN = {"score": "identity", "weights_from": "softmax_of_selected"}
"""Scores that are the logits themselves."""


def failure(
    logits: Any,
    *,
    ids: Any = None,
    weights: Any = None,
    own: Any = None,
    bias: Any = None,
    **fields: Any,
) -> Failure:
    """The failure of an answer that differs from the reference's in what is given."""
    given = {"selection_bias": np.array(bias)} if bias is not None else {}
    inputs = RouterInputs.from_logits(np.array(logits, dtype=np.float32), **given)
    config = RouterConfig(num_experts=inputs.num_experts, **fields)
    right = route(config, inputs)
    answer = Answer(
        weights=right.weights if weights is None else np.array(weights),
        expert_ids=right.expert_ids if ids is None else np.array(ids),
        logits=right.logits if own is None else np.array(own),
    )
    verdict = judge(Bounds(config, inputs, Numerics()), answer, logits="copy")
    found = first_failure(verdict, "logits", "selection", "weights")
    assert found is not None, "the answer should be wrong"
    return found


def headings(details: tuple[str, ...]) -> list[str]:
    return [line.split()[0] for line in details[3:] if not line.startswith(" ")]


def test_shows_every_stage_in_the_order_of_the_pipeline() -> None:
    found = failure([[3.0, 2.0, 1.0, 0.0]], ids=[[2]], top_k=1, groups=Groups(count=2, kept=1))
    assert headings(found.details) == ["logits", "groups", "selection", "cut", "weights"]
    assert found.details[0].startswith("token 0 of T=1 (H=4 E=4 K=1, float32): groups=Groups(")
    assert found.details[1].startswith("answered  experts [2] with weights ")
    assert found.details[2].startswith("reference experts [0] with weights ")


def test_shows_by_how_much_a_logit_missed_its_allowance() -> None:
    found = failure([[3.0, 2.0]], own=[[3.5, 2.0]], top_k=1)
    (line,) = [line for line in found.details if " missed by " in line]
    assert line.split()[:4] == ["*", "0", "3.5", "3"], "expert, logit, permitted logit"
    assert line.endswith("missed by 0.5, nothing is allowed"), "small integers are exact"


def test_shows_by_how_much_the_cut_was_missed() -> None:
    found = failure([[4.0, 1.0, 3.0]], ids=[[0, 1]], weights=[[0.5, 0.5]], top_k=2, **PLAIN)
    first = next(i for i, line in enumerate(found.details) if line.startswith("cut"))
    assert found.details[first] == "cut       expert 2, left out, competes with 3 or more;"
    assert found.details[first + 1].strip() == "expert 1, chosen, with 1 or less: missed by 2"


def test_shows_the_selection_bias_next_to_the_score() -> None:
    found = failure([[0.0, 0.0]], bias=[0.25, 7.0], ids=[[0]], top_k=1, score="sigmoid")
    rows = [line.split() for line in found.details if line.startswith(" " * 10)]
    assert ["1", "0.5", "7"] in [row[:3] for row in rows]
    assert ["*", "0", "0.5", "0.25"] in [row[:4] for row in rows]


def test_shows_how_far_an_excluded_group_is_from_being_kept() -> None:
    found = failure(
        [[3.0, 2.0, 1.0, 0.5]], ids=[[2]], top_k=1, groups=Groups(count=2, kept=1), **PLAIN
    )
    assert any(
        line.strip() == "group 1 scores 1.5, group 0, kept, 5: missed by 3.5"
        for line in found.details
    ), found.details


def test_shows_by_how_many_allowances_a_weight_missed() -> None:
    found = failure([[1.0, 0.0]], weights=[[0.9]], top_k=1)
    (line,) = [line for line in found.details if " missed by " in line]
    assert line.split()[:2] == ["0", "0.9"]
    assert "times the allowance" in line


def test_says_that_undefined_scores_are_not_judged() -> None:
    found = failure([[np.nan] * 3], ids=[[1, 1]], weights=[[1.0, 1.0]], top_k=2)
    assert found.details[-1] == "this token's scores are undefined: only its ids are judged"


def test_an_id_that_is_no_expert_is_shown() -> None:
    found = failure([[1.0, 0.0]], ids=[[7]], weights=[[1.0]], top_k=1)
    assert found.details[-1].split() == ["7", "1", "no", "such", "expert"]


def test_of_many_experts_only_those_that_matter() -> None:
    logits = np.arange(256.0)[None] / 16.0
    found = failure(logits, ids=[[0, 1]], weights=[[0.5, 0.5]], top_k=2)
    assert len(found.details) < 20
    assert max(len(line) for line in found.details[3:]) <= 120


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
    one = failure([[1.0, 0.0]], weights=[[0.9]], top_k=1)
    assert one == failure([[1.0, 0.0]], weights=[[0.9]], top_k=1)
    assert one != replace(one, stage="logits")

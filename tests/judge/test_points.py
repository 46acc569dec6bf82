"""The point first: what needs no intervals gets the verdict that intervals give."""

from __future__ import annotations

import numpy as np
import pytest
from both_judges import differences, drawn
from verdicts import from_logits, router, verdict_on

from moe_routing.conformance.generators.recipes import RECIPES
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.points import chosen_by
from moe_routing.implementations import Numerics
from moe_routing.reference import Groups

SEED, CASES = 3, 48


def test_both_judges_find_the_same() -> None:
    found = [line for number in range(CASES) for line in differences(number, SEED)[0]]
    assert not found, "\n".join(found)


def test_the_cases_are_of_every_kind() -> None:
    cases = [drawn(number, SEED)[0] for number in range(CASES)]
    assert {case.inputs.dtype for case in cases} == {"float32", "bfloat16", "float16"}
    assert {case.config.score for case in cases} == {
        *("softmax", "sigmoid", "sqrtsoftplus", "identity")
    }
    fills = {None if case.config.groups is None else case.config.groups.fill for case in cases}
    assert fills == {None, 0.0, -np.inf}
    assert len({case.recipe for case in cases}) > len(RECIPES) // 2


TIED = [[2.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus", "identity"])
@pytest.mark.parametrize("bias", [None, [1.0, 0.5, 0.5, -np.inf]])
def test_any_of_tied_experts_is_chosen_without_intervals(score, bias) -> None:
    given = {} if bias is None else {"selection_bias": bias, "selection_bias_on": "gate"}
    config, inputs = router(4, 2, score), from_logits(TIED, **given)
    bounds = Bounds(config, inputs, Numerics())
    own = np.array(TIED)
    for ids, right in (([[0, 1]], True), ([[2, 0]], True), ([[0, 3]], False)):
        assert chosen_by(config, bounds.from_reference, own, np.array(ids))[0] == right
        found = verdict_on(config, inputs, ids, own=TIED, logits="routed")
        assert found.selection[0] == right
        assert "competing" not in found.later.__dict__, "no interval of all was made"


def test_experts_of_another_group_of_the_same_score_are_right_too() -> None:
    config = router(4, 1, "sigmoid", groups=Groups(count=2, kept=1, top=1))
    table = [[1.0, 0.0, 1.0, 0.0]]
    for expert in (0, 2):
        found = verdict_on(config, from_logits(table), [[expert]], own=table, logits="routed")
        assert found.selection.all()

"""Judging replays: ids by slots, weights by bounds of the present routes, and what is exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from near_replays import ABSENT, SUM, replayed

from moe_routing.conformance.calls.replay import ReplayCase
from moe_routing.conformance.explain.replay import replay_failure
from moe_routing.conformance.judge import Answer
from moe_routing.conformance.judge.replay import ReplayVerdict
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.replay import facts_of, read
from moe_routing.implementations import Numerics, RoutingMap
from moe_routing.reference import replay
from moe_routing.reference.formats import BFLOAT16


def verdict(case: ReplayCase, change: Any = lambda answer: answer) -> ReplayVerdict:
    """Judge the reference's answer, changed."""
    found = replay(case.config, case.inputs.router, case.inputs.recorded)
    answer = Answer(
        weights=found.weights.astype(np.float32).astype(float), expert_ids=found.expert_ids
    )
    return ReplayVerdict(facts=facts_of(case, Numerics()), answer=change(answer), routed=False)


def off(token: int, slot: int, factor: float) -> Any:
    def change(answer: Answer) -> Answer:
        weights = answer.weights.copy()
        weights[token, slot] *= factor
        return replace(answer, weights=weights)

    return change


CASES = {
    "plain": replayed(),
    "absent": replayed(ABSENT, renormalize=SUM),
    "of the selected": replayed(ABSENT, score="identity", weights_from="softmax_of_selected"),
    "repeated": replayed(((1, 1), (0, 3), (2, 2)), renormalize=SUM),
    "all absent": replayed(((-1, -1), (0, 3), (1, 2)), score="sigmoid", renormalize=SUM),
}


@pytest.mark.parametrize("name", CASES)
def test_the_reference_is_right_and_a_hundred_thousandth_off_is_not(name: str) -> None:
    case = CASES[name]
    assert replay_failure(verdict(case)) is None
    t, k = np.argwhere(facts_of(case, Numerics()).present)[-1]
    wrong = verdict(case, off(int(t), int(k), 1.00001))
    assert np.argwhere(wrong.wrong_weights).tolist() == [[t, k]]


def test_an_absent_route_that_weighs_anything_is_wrong() -> None:
    def change(answer: Answer) -> Answer:
        return replace(answer, weights=np.where(answer.expert_ids < 0, 1e-30, answer.weights))

    found = verdict(CASES["absent"], change)
    assert found.wrong_weights.tolist()[0] == [True, False]
    words = "weights[0, 0]=1e-30, but should be 0: the route is absent"
    assert replay_failure(found).summary == words


def test_ids_are_compared_slot_by_slot_and_the_story_says_what_they_look_like() -> None:
    def swapped(answer: Answer) -> Answer:
        return replace(answer, expert_ids=np.sort(answer.expert_ids, axis=1))

    found = replay_failure(verdict(replayed(), swapped))
    assert found.summary == "expert_ids[0, 0]=1, but 2 was recorded"
    assert "looks     as if the ids were sorted" in found.details


def test_recorded_weights_are_exact_and_ignored_ones_are_named() -> None:
    held = np.array([[[0.5, 0.125]]] * 3, np.float32)
    case = replayed(record={"weights": held})
    assert replay_failure(verdict(case)) is None
    assert verdict(case, off(1, 1, 1 + 2.0**-23)).wrong_weights.sum() == 1
    own = replay(case.config, case.inputs.router, replayed().inputs.recorded).weights
    found = replay_failure(verdict(case, lambda answer: replace(answer, weights=own)))
    assert any("the recorded weights were ignored" in line for line in found.details)


def test_a_token_without_scores_is_judged_by_its_ids_alone() -> None:
    case = replayed(rows=[[np.nan] * 4, *replayed().inputs.hidden[1:]])
    assert not verdict(case, off(0, 0, 7.0)).wrong_weights.any()
    assert verdict(case, off(1, 0, 7.0)).wrong_weights.any()


def test_in_16_bits_the_weights_of_a_token_have_one_factor() -> None:
    case = replayed(
        renormalize=SUM, scores_dtype="input", weights_dtype="input", logits_dtype="input"
    )
    case = replace(case, inputs=replace(case.inputs, dtype="bfloat16"))

    def rounded(answer: Answer) -> Answer:
        return replace(answer, weights=BFLOAT16.round(answer.weights).astype(float))

    assert replay_failure(verdict(case, rounded)) is None
    assert verdict(case, off(0, 0, 1.05)).wrong_weights.any()


class TestMaps:
    """A dense map is read in the order of the record."""

    CASE = replayed(ABSENT)

    def read(self, experts: list[list[int]]) -> Answer:
        marked = np.zeros((3, 4), bool)
        for t, chosen in enumerate(experts):
            marked[t, chosen] = True
        facts = facts_of(self.CASE, Numerics())
        made = RoutingMap(probs=np.full((3, 4), 0.25, np.float32), routing_map=marked)
        return read(made, self.CASE.config, facts, 3)

    def test_of_the_recorded_experts(self) -> None:
        found = self.read([[1], [0, 3], [1, 2]])
        assert found.expert_ids.tolist() == [[*each] for each in ABSENT]
        assert found.weights[0].tolist() == [0.0, 0.25]

    def test_others_take_the_slots_of_what_is_missing_then_the_absent(self) -> None:
        assert self.read([[0, 1], [0, 2], [1, 2]]).expert_ids.tolist() == [[0, 1], [0, 2], [1, 2]]

    def test_too_many_are_told(self) -> None:
        with pytest.raises(Malformed, match=r"routing_map\[1\] has 3 experts, but should have at"):
            self.read([[1], [0, 2, 3], [1, 2]])

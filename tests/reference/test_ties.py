"""Ties and the smallest sizes: what the reference router does where nothing decides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from moe_routing.reference import (
    Groups,
    Renormalize,
    RouterConfig,
    RouterInputs,
    route,
    stages,
)
from moe_routing.reference.config import SCORES
from moe_routing.reference.groups import group_scores

from_logits = RouterInputs.from_logits


def configured(num_experts: int, top_k: int, score: str = "softmax", **axes: Any) -> RouterConfig:
    """A router of any score: in logit space, weights come from the selected logits."""
    if score == "identity":
        axes.setdefault("weights_from", "softmax_of_selected")
    return RouterConfig(num_experts=num_experts, top_k=top_k, score=score, **axes)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


# --- ties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("num_experts", [1, 2, 3, 7, 8, 9, 31, 64, 257])
def test_equal_scores_select_the_lowest_experts_in_order(num_experts: int, score: str) -> None:
    inputs = from_logits(np.full((3, num_experts), 0.7, np.float32))
    for top_k in {1, (num_experts + 1) // 2, num_experts}:
        ids = route(configured(num_experts, top_k, score), inputs).expert_ids
        assert ids.tolist() == [list(range(top_k))] * 3


@pytest.mark.parametrize(
    ("logits", "ids"),
    [
        ([1, 2, 2, 2, 0, 2], [1, 2, 3]),
        ([2, 1, 1, 1, 2, 0], [0, 4, 1]),
        ([0, 0, 5, 0, 0, 5], [2, 5, 0]),
        ([-1, -1, -1, -1, -1, 0], [5, 0, 1]),
        ([0.0, -0.0, 0.0, -0.0, -1, -1], [0, 1, 2]),
    ],
)
@pytest.mark.parametrize("score", SCORES)
def test_mixed_ties_go_to_the_lowest_expert(
    logits: list[float], ids: list[int], score: str
) -> None:
    got = route(configured(6, 3, score), from_logits([logits, logits]))
    assert got.expert_ids.tolist() == [ids, ids]


def test_saturated_sigmoids_tie_although_their_logits_differ() -> None:
    got = stages(configured(3, 1, "sigmoid"), from_logits([[50.0, 100.0, 200.0]]))
    assert got.scores.tolist() == [[1.0, 1.0, 1.0]], "in float64 all three round to one"
    assert got.expert_ids.tolist() == [[0]]


def test_a_selection_bias_breaks_and_makes_ties() -> None:
    inputs = from_logits([[1.0, 1.0, 1.0], [0.0, 0.25, 0.5]], selection_bias=[0.5, 0.25, 0.0])
    got = route(configured(3, 3, "identity"), inputs)
    assert got.expert_ids.tolist() == [[0, 1, 2], [0, 1, 2]]
    inputs = from_logits([[1.0, 1.0, 1.0]], selection_bias=[-0.5, 0.25, 0.0])
    assert route(configured(3, 3, "identity"), inputs).expert_ids.tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("top", [1, 2, 3, 4])
def test_equal_groups_keep_the_lowest(top: int) -> None:
    rule = Groups(count=4, kept=2, top=top)
    got = stages(configured(12, 6, "sigmoid", groups=rule), from_logits([[1.0, 2.0, 0.0] * 4]))
    assert got.kept.tolist() == [[True] * 6 + [False] * 6]
    assert got.expert_ids.tolist() == [[1, 4, 0, 3, 2, 5]]


def test_groups_of_the_same_scores_tie_in_whatever_order_they_stand() -> None:
    rng = np.random.default_rng(0)
    for size, top in ((3, 3), (8, 4), (64, 8), (512, 100)):
        for _ in range(20):
            scores = rng.random(size)
            pair = np.concatenate([scores, rng.permutation(scores)])[None]
            first, second = group_scores(Groups(count=2, kept=1, top=top), pair)[0]
            assert first == second, f"the {top} best of the same {size} scores are the same sum"


def test_equal_gate_rows_tie_where_their_logits_are_exact() -> None:
    """Products of small integers: whatever the order of a sum, none of them is rounded."""
    for num_experts, hidden_size, tokens in ((3, 33, 1), (5, 17, 3), (7, 64, 5), (64, 100, 9)):
        rng = np.random.default_rng(num_experts)
        hidden = rng.integers(-8, 9, size=(tokens, hidden_size)).astype(np.float32)
        row = rng.integers(-8, 9, size=hidden_size).astype(np.float32)
        inputs = RouterInputs(hidden=hidden, gate_weight=np.tile(row, (num_experts, 1)))
        got = stages(configured(num_experts, 1), inputs)
        assert (got.logits == got.logits[:, :1]).all(), f"E={num_experts}: equal rows tie"
        assert not got.expert_ids.any(), f"E={num_experts}: the first of equal experts wins"


# --- sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("groups", [None, Groups(count=2, kept=1)])
def test_an_empty_batch_keeps_every_shape(score: str, groups: Groups | None) -> None:
    config = configured(4, 2, score, groups=groups, renormalize=Renormalize(), scale=2.0)
    for inputs in (
        from_logits(np.zeros((0, 4), np.float32)),
        RouterInputs(hidden=np.zeros((0, 3), np.float32), gate_weight=np.ones((4, 3), np.float32)),
    ):
        got = route(config, inputs)
        assert (got.weights.shape, got.weights.dtype) == ((0, 2), np.float64)
        assert (got.expert_ids.shape, got.expert_ids.dtype) == ((0, 2), np.int64)
        assert got.logits.shape == (0, 4)


@pytest.mark.parametrize("score", SCORES)
def test_selecting_every_expert_ranks_them_all(score: str) -> None:
    rng = np.random.default_rng(1)
    logits = normal(rng, 5, 9)
    ids = route(configured(9, 9, score), from_logits(logits)).expert_ids
    assert ids.tolist() == np.argsort(-logits, axis=1).tolist()


def test_softmax_weights_of_all_experts_sum_to_one() -> None:
    weights = route(configured(9, 9), from_logits(np.arange(9.0)[None])).weights
    assert math.fsum(weights[0]) == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("groups", [None, Groups(count=1, kept=1)])
@pytest.mark.parametrize("score", SCORES)
def test_a_single_expert_is_always_selected(score: str, groups: Groups | None) -> None:
    config = configured(1, 1, score, groups=groups)
    got = route(config, from_logits([[-3.0], [0.0], [5.0]]))
    assert got.expert_ids.tolist() == [[0], [0], [0]]
    if score in ("softmax", "identity"):
        assert got.weights.tolist() == [[1.0], [1.0], [1.0]]


def test_a_group_smaller_than_top_scores_the_sum_of_what_it_has() -> None:
    inputs = from_logits([[1.0, 2.0, 4.0, -1.0, 0.0, 3.5]])
    for top in (2, 3, 100):
        rule = Groups(count=3, kept=1, top=top)
        got = stages(configured(6, 1, "identity", groups=rule), inputs)
        assert got.group_scores.tolist() == [[3.0, 3.0, 3.5]]
        assert got.expert_ids.tolist() == [[5]]
    rule = Groups(count=3, kept=1, top=1)
    got = stages(configured(6, 1, "identity", groups=rule), inputs)
    assert got.group_scores.tolist() == [[2.0, 4.0, 3.5]], "one is the maximum"


def test_groups_of_one_expert_are_plain_selection() -> None:
    logits = normal(np.random.default_rng(2), 6, 8)
    rule = Groups(count=8, kept=3)
    grouped = route(configured(8, 3, "sigmoid", groups=rule), from_logits(logits))
    plain = route(configured(8, 3, "sigmoid"), from_logits(logits))
    assert grouped.expert_ids.tolist() == plain.expert_ids.tolist()
    assert grouped.weights.tolist() == plain.weights.tolist()

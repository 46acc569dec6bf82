"""The worked examples of the specification, as the reference computes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from moe_routing.reference import (
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    SharedExpertInputs,
    SharedSlots,
    dispatch,
    route,
    shared_contribution,
    stages,
)
from moe_routing.reference.weights import renormalize

PRINTED = 5.1e-7
"""Half a unit of the sixth decimal that the examples print, and a little."""


def close(expected: Any) -> Any:
    return pytest.approx(expected, rel=0.0, abs=PRINTED)


def test_logits_are_the_sum_of_gate_delta_and_bias() -> None:
    inputs = RouterInputs(
        hidden=[[1.0, 2.0]],
        gate_weight=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],
        gate_delta=[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]],
        gate_bias=[0.0, 0.0, -1.0],
    )
    config = RouterConfig(num_experts=3, top_k=1, logit_multiplier=2.0, logit_softcap=4.0)
    got = stages(config, inputs)
    assert got.logits.tolist() == [[1.0, 3.0, 2.0]]
    assert got.operated[0] == close([1.848469, 3.620593, 3.046377])


def test_the_input_norm_divides_by_the_root_of_the_hidden_size() -> None:
    inputs = RouterInputs(hidden=[[3.0, 4.0]], gate_weight=np.eye(2), hidden_scale=[1.0, 2.0])
    config = RouterConfig(num_experts=2, top_k=1, input_norm=RmsNorm(eps=1e-6))
    assert stages(config, inputs).logits[0] == close([0.6, 1.6])


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("softmax", [0.643914, 0.236883, 0.087144, 0.032059]),
        ("sigmoid", [0.880797, 0.731059, 0.5, 0.268941]),
        ("sqrtsoftplus", [1.458399, 1.145976, 0.832555, 0.559698]),
    ],
)
def test_scores_of_small_logits(score: str, expected: list[float]) -> None:
    inputs = RouterInputs.from_logits([[2.0, 1.0, 0.0, -1.0]])
    got = stages(RouterConfig(num_experts=4, top_k=1, score=score), inputs)
    assert got.scores[0] == close(expected)


@pytest.mark.parametrize(("top", "sums", "kept"), [(1, [0.9, 0.6], 0), (2, [1.0, 1.1], 1)])
def test_the_maximum_and_the_top_two_keep_different_groups(
    top: int, sums: list[float], kept: int
) -> None:
    got = grouped([0.9, 0.1, 0.6, 0.5], groups=Groups(count=2, kept=1, top=top))
    assert got.group_scores[0] == close(sums)
    assert got.kept[0].tolist() == [kept == 0] * 2 + [kept == 1] * 2


@pytest.mark.parametrize(
    ("fill", "competing", "selected"),
    [
        (-math.inf, [-0.5, -0.25, -math.inf, -math.inf], 1),
        (0.0, [-0.5, -0.25, 0.0, 0.0], 2),
    ],
)
def test_negative_scores_meet_the_fill(fill: float, competing: list[float], selected: int) -> None:
    got = grouped([-0.5, -0.25, -0.75, -1.0], groups=Groups(count=2, kept=1, fill=fill))
    assert got.group_scores.tolist() == [[-0.75, -1.75]]
    assert got.competing.tolist() == [competing]
    assert got.expert_ids.tolist() == [[selected]]


def grouped(scores: list[float], **axes: Any) -> Any:
    """Scores taken as they are: through the identity, as a selection needs nothing else."""
    config = RouterConfig(
        num_experts=4, top_k=1, score="identity", weights_from="softmax_of_selected", **axes
    )
    return stages(config, RouterInputs.from_logits(np.array([scores], np.float32)))


def test_the_bias_steers_the_selection_and_not_the_weights() -> None:
    scores = np.array([0.5, 0.75, 0.25, 0.625])
    inputs = RouterInputs.from_logits(
        np.log(scores / (1 - scores)).astype(np.float32)[None], selection_bias=[0, -0.5, 0.5, 0]
    )
    got = stages(RouterConfig(num_experts=4, top_k=2, score="sigmoid"), inputs)
    assert got.biased[0] == close([0.5, 0.25, 0.75, 0.625])
    assert got.expert_ids.tolist() == [[2, 3]]
    assert got.weights[0] == close([0.25, 0.625])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Renormalize(), [0.666667, 0.333333]),
        (Renormalize(order=2.0), [0.894427, 0.447214]),
        (Renormalize(floor=1.0), [0.5, 0.25]),
        (Renormalize(eps=0.25), [0.5, 0.25]),
        (None, [0.5, 0.25]),
    ],
)
def test_renormalised_weights(rule: Renormalize | None, expected: list[float]) -> None:
    assert renormalize(rule, np.array([[0.5, 0.25]]))[0] == close(expected)


def test_the_scale_comes_after_renormalisation_and_the_experts_own_scale_last() -> None:
    logits = np.array([[math.log(2.0), 0.0]], np.float32)
    inputs = RouterInputs.from_logits(logits, per_expert_scale=[2.0, 4.0])
    for scale, expected in ((1.0, 1.333333), (2.5, 3.333333)):
        config = RouterConfig(num_experts=2, top_k=2, renormalize=Renormalize(), scale=scale)
        assert stages(config, inputs).weights[0] == close([expected, expected])


@pytest.mark.parametrize(
    ("weights_from", "expected"),
    [
        ("softmax_of_selected", [0.731059, 0.268941]),
        ("sigmoid_of_selected", [0.880797, 0.731059]),
    ],
)
def test_weights_of_selected_logits(weights_from: str, expected: list[float]) -> None:
    inputs = RouterInputs.from_logits([[1.0, 2.0, 0.0]])
    config = RouterConfig(num_experts=3, top_k=2, score="identity", weights_from=weights_from)
    got = stages(config, inputs)
    assert got.expert_ids.tolist() == [[1, 0]]
    assert got.weights[0] == close(expected)


@pytest.mark.parametrize(
    ("bias", "expert", "weight"),
    [(None, 1, 0.731059), ([0.0, 0.0], 1, 0.880797), ([0.5, 0.0], 0, 0.731059)],
)
def test_a_dispatched_block(bias: list[float] | None, expert: int, weight: float) -> None:
    inputs = RouterInputs.from_logits([[1.0, 2.0]], selection_bias=bias)
    got = dispatch(RouterConfig(num_experts=2, top_k=1), inputs)
    assert got.expert_ids.tolist() == [[expert]]
    assert got.weights[0] == close([weight])


@pytest.mark.parametrize(("gate", "expected"), [(None, 10.569565), ([[1.0, -1.0]], 5.284782)])
def test_a_shared_expert_of_ones(gate: list[list[float]] | None, expected: float) -> None:
    ones = np.ones((3, 2), np.float32)
    inputs = SharedExpertInputs(
        hidden=[[1.0, 1.0]], gate_proj=ones, up_proj=ones, down_proj=ones.T, gate=gate
    )
    got = shared_contribution(SharedExpertConfig(gated=gate is not None), inputs)
    assert got[0] == close([expected, expected])


def test_every_group_gives_its_best_and_no_more() -> None:
    logits = [
        [2.0, 1.75, 1.5, 1.25, 0.5, 0.25, 0.0, -0.25],
        [np.nan, -np.inf, -np.inf, 0, 1, 1, 1, 1],
    ]
    inputs = RouterInputs.from_logits(np.zeros((2, 8), np.float32))
    config = RouterConfig(
        num_experts=8, top_k=4, groups=Groups(count=2, kept=2, from_each=True), score="sigmoid"
    )
    found = stages(config, inputs, logits=np.array(logits))
    assert found.expert_ids.tolist() == [[0, 1, 4, 5], [4, 5, 3, 1]]
    assert found.kept.all()
    assert found.group_scores is None
    empty = RouterInputs.from_logits(np.zeros((0, 8), np.float32))
    assert stages(config, empty).expert_ids.shape == (0, 4)


def test_shared_experts_are_slots_behind_the_routed_ones_with_a_weight_of_their_own() -> None:
    inputs = RouterInputs.from_logits(np.float32([[0.0, 2.0, 2.0], [1.0, 1.0, -9.0]]))
    shared = SharedSlots(count=2, weight=0.4)
    config = RouterConfig(
        num_experts=3, top_k=2, renormalize=Renormalize(), scale=2.5, shared_slots=shared
    )
    found = route(config, inputs)
    assert found.expert_ids.tolist() == [[1, 2, 3, 4], [0, 1, 3, 4]]
    assert found.weights[0] == close([1.25, 1.25, 0.4, 0.4])
    empty = RouterInputs.from_logits(np.zeros((0, 3), np.float32))
    assert route(config, empty).weights.shape == (0, 4)

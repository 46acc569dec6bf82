"""The corners of the reference router: NaN, infinities, exact logits, fills and purity."""

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
    Stages,
    route,
    stages,
)
from moe_routing.reference.config import SCORES

from_logits = RouterInputs.from_logits


def configured(num_experts: int, top_k: int, score: str = "softmax", **axes: Any) -> RouterConfig:
    """A router of any score: in logit space, weights come from the selected logits."""
    if score == "identity":
        axes.setdefault("weights_from", "softmax_of_selected")
    return RouterConfig(num_experts=num_experts, top_k=top_k, score=score, **axes)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


# --- NaN and infinities -------------------------------------------------------------------


@pytest.mark.parametrize(
    "groups", [None, Groups(count=4, kept=2), Groups(count=2, kept=1, fill=0.0)]
)
@pytest.mark.parametrize("score", SCORES)
def test_a_nan_row_gets_distinct_experts_and_leaves_the_others_alone(
    score: str, groups: Groups | None
) -> None:
    rng = np.random.default_rng(3)
    hidden, gate = normal(rng, 6, 5), normal(rng, 8, 5)
    bad = hidden.copy()
    bad[2], bad[4, 1] = np.nan, np.nan
    config = configured(8, 4, score, groups=groups, renormalize=Renormalize(eps=1e-20))
    bias = normal(rng, 8)
    twin = route(config, RouterInputs(hidden=hidden, gate_weight=gate, selection_bias=bias))
    got = route(config, RouterInputs(hidden=bad, gate_weight=gate, selection_bias=bias))
    for t in (2, 4):
        ids = got.expert_ids[t].tolist()
        assert sorted(set(ids)) == sorted(ids), f"ids of a NaN row are distinct, not {ids}"
        assert set(ids) <= set(range(8)), f"ids of a NaN row are in range, not {ids}"
        assert np.isnan(got.weights[t]).all(), "a NaN row has no weights"
    others = [0, 1, 3, 5]
    np.testing.assert_array_equal(got.expert_ids[others], twin.expert_ids[others])
    np.testing.assert_array_equal(got.weights[others], twin.weights[others])


def test_one_nan_logit_loses_to_every_number() -> None:
    gate_bias = np.array([0.0, np.nan, 0.0, 0.0], np.float32)
    hidden = np.array([[-5.0, 9.0, -7.0, -6.0]], np.float32)
    inputs = RouterInputs(hidden=hidden, gate_weight=np.eye(4), gate_bias=gate_bias)
    assert route(configured(4, 4, "sigmoid"), inputs).expert_ids.tolist() == [[0, 3, 2, 1]]


def test_nan_counts_as_minus_infinity_and_ties_with_it() -> None:
    gate_bias = np.array([np.nan, -np.inf, 0.0, np.nan], np.float32)
    inputs = RouterInputs(hidden=np.zeros((1, 4)), gate_weight=np.eye(4), gate_bias=gate_bias)
    config = configured(4, 4, "identity", weights_from="sigmoid_of_selected")
    assert route(config, inputs).expert_ids.tolist() == [[2, 0, 1, 3]]


def test_a_group_scores_its_best_numbers_next_to_a_nan() -> None:
    gate_bias = np.array([np.nan, 2.0, 1.0, 0.0, 1.5, 1.0], np.float32)
    inputs = RouterInputs(hidden=np.zeros((1, 6)), gate_weight=np.eye(6), gate_bias=gate_bias)
    got = stages(configured(6, 1, "identity", groups=Groups(count=2, kept=1)), inputs)
    assert got.group_scores.tolist() == [[3.0, 2.5]]
    assert got.expert_ids.tolist() == [[1]]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("softmax", [1.0, 0.0, 0.0, 0.0]),
        ("sigmoid", [1.0, 1.0, math.exp(-100.0), 0.0]),
        ("sqrtsoftplus", [math.sqrt(2.0**127), math.sqrt(1000.0), math.exp(-50.0), 0.0]),
        ("identity", [2.0**127, 1000.0, -100.0, -(2.0**127)]),
    ],
)
def test_finite_logits_of_any_size_have_finite_scores(score: str, expected: list[float]) -> None:
    inputs = from_logits([[2.0**127, 1000.0, -100.0, -(2.0**127)]])
    with np.errstate(all="raise"):
        got = stages(configured(4, 1, score), inputs)
    np.testing.assert_allclose(got.scores[0], expected, rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("groups", [None, Groups(count=3, kept=1, top=1)])
def test_a_bias_that_is_finite_for_one_expert_selects_it_first(groups: Groups | None) -> None:
    bias = np.full(6, -np.inf, np.float32)
    bias[3] = -2.0
    logits = normal(np.random.default_rng(4), 5, 6)
    inputs = from_logits(logits, selection_bias=bias)
    got = stages(configured(6, 2, "sigmoid", groups=groups), inputs)
    assert got.expert_ids.tolist() == [[3, 0]] * 5, "the rest are equal at -inf: the lowest wins"
    expected = np.take_along_axis(got.scores, got.expert_ids, axis=1)
    np.testing.assert_array_equal(got.weights, expected, "biased scores never become weights")


def test_a_group_with_fewer_finite_scores_than_top_scores_minus_infinity() -> None:
    bias = np.full(6, -np.inf, np.float32)
    bias[3] = -2.0
    rule = Groups(count=3, kept=1, top=2)
    got = stages(
        configured(6, 2, "sigmoid", groups=rule), from_logits([[0.0] * 6], selection_bias=bias)
    )
    assert got.group_scores.tolist() == [[-math.inf] * 3], "a sum with -inf is -inf"
    assert got.expert_ids.tolist() == [[0, 1]], "so the groups tie, and the lowest is kept"


def test_underflow_of_every_weight_is_nan_without_eps_and_zero_with_it() -> None:
    inputs = from_logits([[-2000.0, -3000.0]])
    for rule, expected in (
        (Renormalize(), [math.nan, math.nan]),
        (Renormalize(eps=1e-20), [0.0, 0.0]),
        (Renormalize(floor=1e-12), [0.0, 0.0]),
    ):
        weights = route(configured(2, 2, "sigmoid", renormalize=rule), inputs).weights[0]
        np.testing.assert_array_equal(weights, expected, f"{rule}")


# --- from_logits --------------------------------------------------------------------------


def test_an_identity_gate_carries_finite_logits_exactly() -> None:
    rng = np.random.default_rng(5)
    wide = np.ldexp(rng.uniform(-1.0, 1.0, size=(7, 16)), rng.integers(-140, 128, size=(7, 16)))
    logits = wide.astype(np.float32)
    logits[0, :4] = [3.4028235e38, -3.4028235e38, 1e-45, -0.0]
    inputs = from_logits(logits)
    np.testing.assert_array_equal(route(configured(16, 2), inputs).logits, logits)
    np.testing.assert_array_equal(inputs.logits, logits)


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus"])
def test_an_expert_at_minus_infinity_scores_zero(score: str) -> None:
    logits = np.array([[1.0, -np.inf, 0.5], [-2.0, -np.inf, 3.0]], np.float32)
    inputs = from_logits(logits)
    assert inputs.gate_bias.tolist() == [0.0, -math.inf, 0.0]
    got = stages(configured(3, 3, score), inputs)
    np.testing.assert_array_equal(got.logits, logits)
    assert got.scores[:, 1].tolist() == [0.0, 0.0]
    assert got.expert_ids[:, 2].tolist() == [1, 1], "an expert at -inf comes last"


def test_a_row_that_is_nan_throughout_stays_one() -> None:
    logits = np.array([[1.0, 2.0], [np.nan, np.nan]], np.float32)
    got = route(configured(2, 1), from_logits(logits))
    np.testing.assert_array_equal(got.logits, logits)
    assert got.expert_ids.tolist() == [[1], [0]]


# --- weights and fills --------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 2.5, 0.1, -3.0, 0.0])
@pytest.mark.parametrize("score", SCORES)
def test_one_renormalised_weight_is_exactly_the_scale(score: str, scale: float) -> None:
    config = configured(5, 1, score, renormalize=Renormalize(), scale=scale)
    weights = route(config, from_logits(normal(np.random.default_rng(6), 9, 5) * 5)).weights
    assert weights.tolist() == [[scale]] * 9


def negative_scores(**axes: Any) -> Stages:
    """Both experts of the kept group have negative biased scores; the other is excluded."""
    rule = Groups(count=2, kept=1, fill=axes.pop("fill"))
    inputs = from_logits([[0.0, 0.0, 1.0, 1.0]], selection_bias=[-1.0, -1.0, -9.0, -9.0])
    return stages(configured(4, 2, "sigmoid", groups=rule, **axes), inputs)


def test_a_fill_of_zero_lets_excluded_experts_beat_negative_scores() -> None:
    assert negative_scores(fill=-math.inf).expert_ids.tolist() == [[0, 1]]
    leaked = negative_scores(fill=0.0)
    assert leaked.kept.tolist() == [[True, True, False, False]]
    assert leaked.expert_ids.tolist() == [[2, 3]]


def test_excluded_experts_weigh_nothing_only_where_scores_are_masked() -> None:
    leaked = negative_scores(fill=0.0)
    assert leaked.weights.tolist() == leaked.scores[:, 2:].tolist()
    assert negative_scores(fill=0.0, weights_from="masked_scores").weights.tolist() == [[0.0, 0.0]]


def test_a_table_row_is_taken_as_it_stands_duplicates_and_all() -> None:
    inputs = from_logits([[1.0, 2.0, 3.0]] * 3, expert_table=[[2, 0], [1, 1]], token_ids=[1, 0, 1])
    got = stages(configured(3, 2, "sigmoid"), inputs)
    assert got.expert_ids.tolist() == [[1, 1], [2, 0], [1, 1]]
    assert got.weights.tolist() == np.take_along_axis(got.scores, got.expert_ids, axis=1).tolist()


# --- a function of its inputs -------------------------------------------------------------


def test_routing_repeats_bit_for_bit_and_leaves_its_inputs_alone() -> None:
    rng = np.random.default_rng(7)
    hidden, gate = normal(rng, 6, 5), normal(rng, 8, 5)
    before = hidden.copy(), gate.copy()
    inputs = RouterInputs(hidden=hidden, gate_weight=gate)
    config = configured(8, 3, "identity", logit_multiplier=2.0)
    first, second = route(config, inputs), route(config, inputs)
    first.logits[:] = first.weights[:] = 0.0
    third = route(config, inputs)
    np.testing.assert_array_equal(second.logits, third.logits)
    np.testing.assert_array_equal(second.weights, third.weights)
    np.testing.assert_array_equal(hidden, before[0], "routing writes to no input")
    np.testing.assert_array_equal(gate, before[1], "routing writes to no input")


def test_memory_order_does_not_change_the_experts() -> None:
    rng = np.random.default_rng(8)
    hidden, gate = normal(rng, 12, 10), normal(rng, 16, 10)
    plain = RouterInputs(hidden=hidden[::2, ::2].copy(), gate_weight=gate[::2, ::2].copy())
    strided = RouterInputs(hidden=hidden[::2, ::2], gate_weight=np.asfortranarray(gate)[::2, ::2])
    assert strided.hidden.strides == hidden[::2, ::2].strides, "inputs keep their strides"
    config = configured(8, 3)
    got, expected = route(config, strided).expert_ids, route(config, plain).expert_ids
    np.testing.assert_array_equal(got, expected)


def test_a_row_alone_routes_as_it_does_in_a_batch() -> None:
    rng = np.random.default_rng(9)
    hidden, gate = normal(rng, 20, 33), normal(rng, 16, 33)
    config = configured(16, 4, "sigmoid", groups=Groups(count=4, kept=2))
    batch = route(config, RouterInputs(hidden=hidden, gate_weight=gate))
    for t in range(20):
        alone = route(config, RouterInputs(hidden=hidden[t : t + 1], gate_weight=gate))
        np.testing.assert_array_equal(alone.expert_ids[0], batch.expert_ids[t])
        # 33 products of about 1 sum to within 66 * 2**-53 of each other, well below 1e-12.
        np.testing.assert_allclose(alone.weights[0], batch.weights[t], rtol=1e-12, atol=0.0)

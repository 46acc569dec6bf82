"""The reference of a whole layer: the sum of its parts, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from near_layers import E, F, H, composed

from moe_routing.reference import (
    ExpertsConfig,
    LayerConfig,
    LayerInputs,
    RouterConfig,
    SharedExpertConfig,
    experts,
    layer,
    route,
    shared_contribution,
)


def test_it_is_the_sum_of_its_parts() -> None:
    case = composed(gated=True, scale=2.5, score="sigmoid")
    config, inputs = case.config, case.inputs
    routing = route(config.router, inputs.router)
    weights = np.asarray(routing.weights, np.float32)
    routed = experts(config.experts, inputs.experts_at(routing.expert_ids, weights))
    assert inputs.shared is not None
    due = routed + shared_contribution(config.shared, inputs.shared)
    answer = layer(config, inputs)
    np.testing.assert_array_equal(answer.output, due)
    np.testing.assert_array_equal(answer.routing.expert_ids, routing.expert_ids)


def test_the_example_of_the_page() -> None:
    one = np.ones((1, 1), np.float32)
    inputs = LayerInputs(
        hidden=one,
        gate_weight=np.float32([[1], [0]]),
        experts_up=np.float32([[[3]], [[5]]]),
        experts_down=np.float32([[[1]], [[1]]]),
        shared_gate_proj=one,
        shared_up_proj=np.float32([[0.5]]),
        shared_down_proj=one,
    )
    config = LayerConfig(
        router=RouterConfig(num_experts=2, top_k=1, scale=2.0),
        experts=ExpertsConfig(num_experts=2, gated=False, activation="relu"),
        shared=SharedExpertConfig(),
    )
    shared = 0.5 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(layer(config, inputs).output, 1.462117 * 3 + shared, atol=1e-6)


def test_without_a_shared_expert_nothing_is_added() -> None:
    case = composed(shared="none")
    assert case.inputs.shared is None
    routing = route(case.config.router, case.inputs.router)
    weights = np.asarray(routing.weights, np.float32)
    given = case.inputs.experts_at(routing.expert_ids, weights)
    np.testing.assert_array_equal(
        layer(case.config, case.inputs).output, experts(case.config.experts, given)
    )


def test_without_tokens_the_output_is_empty() -> None:
    case = composed(tokens=0)
    assert layer(case.config, case.inputs).output.shape == (0, H)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            {"shared_up_proj": None},
            "Cannot have shared_gate_proj without shared_up_proj: give all three or none",
        ),
        (
            {"experts_up": np.zeros((E + 1, F, H), np.float32)},
            "Expected experts_up of shape [E, F, H] with E=4 and F=4 and H=4 but got shape",
        ),
        (
            {"experts_gate": None, "experts_gate_bias": np.zeros((E, F), np.float32)},
            "Cannot have experts_gate_bias without experts_gate: nothing reads it",
        ),
    ],
)
def test_bad_arrays_are_refused_by_name(arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        composed(arrays=arrays)


def test_a_gate_of_no_shared_expert_is_refused() -> None:
    with pytest.raises(ValueError, match="Cannot have shared_gate without shared_gate_proj"):
        composed(shared="none", arrays={"shared_gate": np.ones((1, H), np.float32)})


def test_a_configuration_is_of_one_number_of_experts() -> None:
    with pytest.raises(ValueError, match="num_experts=3 with router"):
        LayerConfig(
            router=RouterConfig(num_experts=2, top_k=1), experts=ExpertsConfig(num_experts=3)
        )


def test_a_shared_expert_that_is_missing_is_refused() -> None:
    case = composed(shared="none")
    config = replace(case.config, shared=SharedExpertConfig(kind="plural"))
    with pytest.raises(ValueError, match="Expected shared_up_proj to be given"):
        layer(config, case.inputs)

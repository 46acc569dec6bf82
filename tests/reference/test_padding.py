"""Padding: what is told, and what is answered to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moe_routing.reference import Padding, RouterConfig, RouterInputs, route, route_padded

CONFIG = RouterConfig(num_experts=4, top_k=2)
ROWS = np.array([[1.0, 0.25, -0.5, 2.0], [np.nan] * 4, [-1.0, 0.75, 2.5, 0.25]], np.float32)
INPUTS = RouterInputs(hidden=ROWS, gate_weight=np.eye(4, dtype=np.float32))


def test_the_value_is_what_the_convention_says() -> None:
    real = np.array([1, 1, 0])
    assert Padding(real=real, told="count").value == 2
    assert Padding(real=real, told="valid").value.tolist() == [True, True, False]
    assert Padding(real=real, told="padding").value.tolist() == [False, False, True]


@pytest.mark.parametrize(("sentinel", "nobody"), [("minus-one", -1), ("num-experts", 4)])
def test_padding_has_the_sentinel_and_tokens_their_routes(sentinel: Any, nobody: int) -> None:
    found = route_padded(CONFIG, INPUTS, Padding(real=np.array([1, 0, 1])), sentinel)
    free = route(CONFIG, INPUTS)
    assert found.expert_ids[1].tolist() == [nobody] * 2
    assert found.weights[1].tolist() == [0.0, 0.0]
    for t in (0, 2):
        np.testing.assert_array_equal(found.weights[t], free.weights[t])
        np.testing.assert_array_equal(found.expert_ids[t], free.expert_ids[t])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Padding(real=np.array([1, 2])), "Expected real to be 0 or 1 for each token"),
        (lambda: Padding(real=np.array([1]), told="mask"), "Expected told to be one of count"),
        (
            lambda: Padding(real=np.array([1, 0, 1]), told="count"),
            "Cannot have token 2 after padding with told='count'",
        ),
        (
            lambda: route_padded(CONFIG, INPUTS, Padding(real=np.array([1]))),
            r"Expected real of shape \[3\] for as many tokens but got \(1,\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()

"""The reference's drops: capacities, orders, survivors, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moe_routing.reference import CapacityConfig, Routes, drop

IDS = np.array([[2, 0], [0, 3], [1, 0], [0, 1]])
WEIGHTS = np.array([[10, 1], [11, 2], [12, 3], [13, 4]], np.float32) / 16
ROUTES = Routes(expert_ids=IDS, weights=WEIGHTS)


def config(**fields: Any) -> CapacityConfig:
    return CapacityConfig(**{"num_experts": 4, **fields})


@pytest.mark.parametrize(
    ("fields", "tokens", "top_k", "capacity"),
    [
        ({}, 4, 2, 2),
        ({"factor": 1.25}, 4, 2, 3),
        ({"factor": 1.25, "rounding": "down"}, 4, 2, 2),
        ({"factor": 1.25, "share": "tokens"}, 4, 2, 2),
        ({"factor": 3.0, "share": "one"}, 400, 2, 3),
        ({"factor": 0.25, "minimum": 3}, 4, 2, 3),
        ({"factor": 100.0}, 4, 2, 4),
        ({"minimum": 100}, 4, 2, 4),
        ({"factor": 0.0}, 4, 2, 0),
        ({"factor": 0.0, "minimum": 1}, 4, 2, 1),
        ({"factor": 0.0, "zero": "unlimited"}, 4, 2, 4),
        ({}, 0, 2, 0),
    ],
)
def test_the_capacity(fields: dict[str, Any], tokens: int, top_k: int, capacity: int) -> None:
    assert config(**fields).capacity(tokens, top_k) == capacity


@pytest.mark.parametrize(
    ("order", "kept"), [("token", [0, 1]), ("slot", [1, 3]), ("weight", [1, 3]), ("free", [0, 1])]
)
def test_the_order_says_which_tokens_an_expert_keeps(order: Any, kept: list[int]) -> None:
    found = drop(config(order=order), ROUTES)
    assert np.argwhere(found.expert_ids == 0)[:, 0].tolist() == kept
    assert (found.weights[found.expert_ids == -1] == 0).all()


def test_survivors_are_kept_rescaled_or_normalized() -> None:
    kept, rescaled, normalized = (
        drop(config(survivors=each), ROUTES).weights[3].tolist()
        for each in ("kept", "rescaled", "normalized")
    )
    assert kept == [0, 0.25]
    assert rescaled == [0, 17 / 16]
    assert normalized == [0, 1]


def test_a_token_that_loses_all_is_exactly_0() -> None:
    routes = Routes(expert_ids=[[0], [0]], weights=np.float32([[0.5], [0.25]]))
    for survivors in ("kept", "rescaled", "normalized"):
        fields: dict[str, Any] = {"num_experts": 1, "factor": 0.5, "survivors": survivors}
        found = drop(CapacityConfig(**fields), routes)
        assert found.expert_ids.tolist() == [[0], [-1]]
        assert found.weights[1].tolist() == [0.0]


def test_absent_routes_take_no_room() -> None:
    ids, weights = [[-1, 0], [0, -1], [0, 1]], np.float32([[0, 0.5], [0.5, 0], [0.75, 0.5]])
    found = drop(config(factor=2.0, share="one"), Routes(expert_ids=ids, weights=weights))
    assert found.expert_ids.tolist() == [[-1, 0], [0, -1], [-1, 1]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"factor": -1.0}, r"Expected factor >= 0 but got -1.0"),
        ({"factor": float("nan")}, "Expected factor to be finite"),
        ({"minimum": -1}, "Expected minimum >= 0 but got -1"),
        ({"share": "slots"}, "Expected share to be one of routes, tokens, one but got 'slots'"),
        ({"share": "one", "factor": 1.5}, "Expected a whole factor with share='one' but got"),
        ({"num_experts": 0}, "Expected num_experts >= 1"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**fields)


@pytest.mark.parametrize(
    ("ids", "weights", "order", "words"),
    [
        ([[4, 0]], [[1, 1]], "token", r"Cannot have expert_ids\[0, 0\]=4: ids are below"),
        ([[1, 1]], [[1, 1]], "token", "Cannot have an expert in several slots of a token"),
        ([[1, 0]], [[1, 0]], "token", r"Cannot have weights\[0, 1\]=0.0: a route that a capacity"),
        (
            [[1, 0]],
            [[1, 2]],
            "slot",
            r"Cannot have weights\[0, 1\]=2.0 after 1.0 with order='slot'",
        ),
    ],
)
def test_routes_that_a_capacity_says_nothing_about_are_refused(
    ids: Any, weights: Any, order: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        drop(config(order=order), Routes(expert_ids=ids, weights=np.float32(weights)))


def test_slots_fall_over_absent_ones() -> None:
    routes = Routes(expert_ids=[[1, -1, 0]], weights=np.float32([[1, 0, 0.5]]))
    assert drop(config(order="slot"), routes).expert_ids.tolist() == [[1, -1, 0]]

"""Shards: placements that are refused, and parts that add up to the layer."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from moe_routing.reference import (
    ExpertsConfig,
    ExpertsInputs,
    Placement,
    computed_by,
    even_placement,
    experts,
    local_call,
    shard,
)

CONFIG = ExpertsConfig(num_experts=5, activation="relu", gated=False)


def call(seed: int = 0, tokens: int = 7) -> ExpertsInputs:
    """A call of five experts, some of whose routes are absent."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(-1, 5, (tokens, 3))
    return ExpertsInputs(
        hidden=rng.integers(-3, 4, (tokens, 4)),
        expert_ids=ids,
        weights=np.where(ids < 0, 0, rng.integers(1, 5, ids.shape) / 4),
        up_weight=rng.integers(-2, 3, (5, 3, 4)),
        down_weight=rng.integers(-2, 3, (5, 4, 3)),
    )


def placement(rank_of: Any, logical_of: Any, num_ranks: int = 3) -> Placement:
    return Placement(rank_of=rank_of, logical_of=logical_of, num_ranks=num_ranks)


PLACEMENTS = {
    "even": even_placement(5, 5),
    "remainder": even_placement(5, 3),
    "more ranks than experts": even_placement(5, 8),
    "mapped": placement([2, 0, 0, 1, 2], [4, 2, 0, 3, 1]),
    "a rank without experts": placement([2, 0, 0, 2, 2], [4, 2, 0, 3, 1]),
    "replicas": placement([0, 0, 1, 1, 2, 2, 2, 0], [0, 1, 2, 3, 4, 0, 3, 4]),
}


@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_parts_add_up_to_the_layer(name: str) -> None:
    where, inputs = PLACEMENTS[name], call()
    parts = [shard(CONFIG, inputs, where, rank) for rank in range(where.num_ranks)]
    np.testing.assert_array_equal(np.sum(parts, axis=0), experts(CONFIG, inputs))


@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_local_call_of_a_rank_is_its_part(name: str) -> None:
    where, inputs = PLACEMENTS[name], call()
    for rank in range(where.num_ranks):
        local = local_call(CONFIG, inputs, where, rank)
        part = experts(*local) if local else np.zeros(inputs.hidden.shape)
        np.testing.assert_array_equal(part, shard(CONFIG, inputs, where, rank))
        assert (local is None) == (not where.local(rank).size)


def test_each_route_is_computed_by_a_rank_that_has_its_expert() -> None:
    inputs = call()
    for where in PLACEMENTS.values():
        ranks = computed_by(inputs.routes, where)
        assert ((ranks < 0) == (inputs.expert_ids < 0)).all()
        for rank, expert in zip(ranks.ravel(), inputs.expert_ids.ravel(), strict=True):
            assert expert < 0 or expert in where.local(rank)


def test_replicas_share_the_tokens() -> None:
    where, inputs = PLACEMENTS["replicas"], call(tokens=40)
    ranks = computed_by(inputs.routes, where)
    assert set(ranks[inputs.expert_ids == 0].tolist()) == {0, 2}


def test_the_remainder_is_on_the_first_ranks() -> None:
    assert even_placement(5, 3).rank_of.tolist() == [0, 0, 1, 1, 2]
    assert even_placement(2, 4).rank_of.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("rank_of", "logical_of", "num_ranks", "words"),
    [
        ([0, 3], [0, 1], 3, "Expected rank_of in 0..2 but got 3 at [1]"),
        ([-1, 0], [0, 1], 3, "Expected rank_of in 0..2 but got -1 at [0]"),
        ([0, 0], [0, 2], 1, "Expected logical_of in 0..1 but got 2 at [1]"),
        ([0, 0, 0], [0, 2, 2], 1, "Expected every expert in logical_of but 1 is nowhere"),
        ([0, 1, 1], [1, 0, 0], 2, "Cannot have two replicas of an expert on one rank"),
        ([0], [0], 0, "num_ranks"),
        ([0, 1], [0], 2, "logical_of"),
    ],
)
def test_a_bad_placement_is_refused(
    rank_of: list[int], logical_of: list[int], num_ranks: int, words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        placement(rank_of, logical_of, num_ranks)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="placement of num_experts=5 but got 4"):
        shard(CONFIG, call(), even_placement(4, 2), 0)
    with pytest.raises(ValueError, match=r"Expected rank in 0..1 but got 2"):
        shard(CONFIG, call(), even_placement(5, 2), 2)

"""The judge of drops: permitted capacities, one breach of each law, and answers in each layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.generators.capacity import case_of
from moe_routing.conformance.judge import capacity as laws
from moe_routing.conformance.judge.capacity import Demand, Dropped
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.capacity import demand_of, read
from moe_routing.implementations import RoutingMap
from moe_routing.reference import CapacityConfig, Routing

IDS = [[2, 0], [0, 3], [1, 0], [0, 1]]


def demand(ids: Any = IDS, **fields: Any) -> Demand:
    return demand_of(case_of(CapacityConfig(**{"num_experts": 4, **fields}), ids))


def answer(of: Demand, kept: Any, scale: float = 1.0, **parts: Any) -> Dropped:
    """An answer that keeps the slots of ``kept``, with their weights times ``scale``."""
    kept = np.array(kept, dtype=bool)
    weights = np.where(kept, of.before * scale, 0.0)
    return Dropped(kept=kept, weights=weights, lost=np.zeros(len(kept)), **parts)


RIGHT = [[1, 1], [1, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("factor", "experts", "tokens", "room"),
    [
        (1.25, 4, 4, (3, 3)),  # exact: 2.5
        (1.0, 3, 3, (2, 2)),  # T / E is whole
        (1.5, 6, 10, (5, 6)),  # 5 exactly, but 10 / 6 is rounded
        (1.1, 10, 5, (2, 2)),  # 1.1
        (0.3, 3, 5, (1, 2)),  # a hair below 1 in float64
        (3.0, 7, 5, (5, 5)),  # 4.28, at most T
    ],
)
def test_a_capacity_near_a_whole_number_may_be_either(
    factor: float, experts: int, tokens: int, room: tuple[int, int]
) -> None:
    ids = np.tile([0, 1], (tokens, 1))
    assert demand(ids, factor=factor, num_experts=experts).room == room


def test_what_is_right_breaks_no_law() -> None:
    due = demand()
    found = answer(due, RIGHT)
    for law in (laws.no_others, laws.respected, laws.none_needlessly, laws.in_order):
        assert law(due, found) is None
    assert laws.survivors(due, found) is laws.nothing_lost(due, found) is None


def test_each_law_names_the_place() -> None:
    due = demand()
    kept = [[1, 1], [1, 1], [1, 1], [0, 1]]
    miss = laws.respected(due, answer(due, kept))
    assert miss is not None
    assert miss.words == "expert 0 keeps 3 routes: its capacity is 2"
    miss = laws.none_needlessly(due, answer(due, [[1, 0], [1, 1], [1, 0], [0, 1]]))
    assert miss is not None
    assert "token 0, slot 1 is dropped, but expert 0 keeps 1 of 4 routes" in miss.words
    miss = laws.in_order(due, answer(due, [[1, 0], [1, 1], [1, 1], [0, 1]]))
    assert miss is not None
    assert miss.words.endswith("is dropped by expert 0, which keeps token 2, slot 1, after it")
    miss = laws.survivors(due, answer(due, RIGHT, scale=2.0))
    assert miss is not None
    assert "but should weigh" in miss.words


def test_order_is_free_where_nothing_is_claimed_and_ties_always_are() -> None:
    free = demand(order="free")
    assert laws.in_order(free, answer(free, [[1, 0], [1, 1], [1, 0], [1, 1]])) is None
    config = CapacityConfig(num_experts=1, factor=0.5, order="weight")
    tied = demand_of(case_of(config, [[0], [0]], [[0.5], [0.5]]))
    for kept in ([[1], [0]], [[0], [1]]):
        assert laws.in_order(tied, answer(tied, kept)) is None


@pytest.mark.parametrize("survivors", ["rescaled", "normalized"])
def test_a_few_ulps_are_permitted_and_a_thousandth_is_not(survivors: Any) -> None:
    due = demand(survivors=survivors)
    found = answer(due, RIGHT)
    mid = due.permitted(found.kept).mid
    for off, right in ((1 + 2.0**-23, True), (1 + 2.0**-10, False)):
        near = Dropped(kept=found.kept, weights=mid * off, lost=found.lost)
        assert (laws.survivors(due, near) is None) == right


def read_in(weights: Any, ids: Any) -> Dropped:
    case = case_of(CapacityConfig(num_experts=4), IDS)
    return read(Routing(weights=np.array(weights), expert_ids=np.array(ids)), case)


def test_slots_of_an_answer_are_in_any_order() -> None:
    found = read_in([[1.0, 2.0], [3, 4], [0, 5], [6, 0]], [[0, 2], [3, 0], [-1, 1], [1, -1]])
    assert found.kept.astype(int).tolist() == RIGHT
    assert found.weights.tolist() == [[2, 1], [4, 3], [5, 0], [0, 6]]
    assert found.others == ()


def test_what_is_no_route_or_comes_twice_is_told_and_so_is_a_weight_that_stays() -> None:
    found = read_in([[1.0, 2], [3, 4], [5, 9], [6, 7]], [[2, 2], [0, 1], [1, -1], [0, 1]])
    assert found.others == ((0, 2), (1, 1))
    assert found.lost.tolist() == [0, 0, 9, 0]
    due = demand()
    miss = laws.no_others(due, found)
    assert miss is not None
    assert miss.words == "token 0 keeps expert 2 twice"
    miss = laws.nothing_lost(due, found)
    assert miss is not None
    assert miss.words == "what token 2 lost weighs 9, not 0"


def test_a_map_is_read_as_slots_are() -> None:
    case = case_of(CapacityConfig(num_experts=4), IDS)
    kept = np.zeros((4, 4), bool)
    kept[0, 2] = kept[3, 3] = True
    found = read(RoutingMap(probs=np.ones((4, 4), np.float32), routing_map=kept), case)
    assert found.kept.astype(int).tolist() == [[1, 0], [0, 0], [0, 0], [0, 0]]
    assert found.others == ((3, 3),)
    assert (found.lost == 1).all()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (None, "drop returned None, but should return Routing or RoutingMap"),
        (Routing(weights=None, expert_ids=np.zeros((4, 2), int)), "weights is None"),
        (Routing(weights=np.zeros((4, 2)), expert_ids=np.zeros((4, 1), int)), "has shape"),
        (Routing(weights=np.zeros((4, 2)), expert_ids=np.zeros((4, 2))), "should be integers"),
    ],
)
def test_another_form_is_malformed(raw: Any, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        read(raw, case_of(CapacityConfig(num_experts=4), IDS))

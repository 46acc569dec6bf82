"""Ranges: every E and K that is claimed can be drawn, and small ones come first."""

from __future__ import annotations

from collections import Counter

import pytest

from moe_routing.conformance.generators.choices import Focus, choose_router, narrowed_by, seeded
from moe_routing.conformance.generators.ranges import (
    BOUNDARIES,
    EXPERTS,
    MORE_EXPERTS,
    MOST_EXPERTS,
    TOP_K,
    any_experts,
    any_slots,
    listed_experts,
)
from moe_routing.implementations import Capabilities, Claim, Limits

ALL = Limits()


def test_every_number_of_experts_up_to_the_most_is_offered() -> None:
    offered = any_experts(ALL, 1)
    assert {*offered} == {*range(1, MOST_EXPERTS + 1)}
    assert [*offered] == sorted(offered), "shrinking ends at the smallest"


@pytest.mark.parametrize("number", [33, 129, 257, 383, 385, 895, 897, 1025])
def test_numbers_at_a_boundary_come_more_often_than_others_near(number: int) -> None:
    assert number in BOUNDARIES
    often = Counter(any_experts(ALL, 1))
    assert often[number] > often[number + 4]


@pytest.mark.parametrize(
    ("limits", "least"),
    [
        (Limits(max_experts=100), 1),
        (Limits(experts_multiple_of=32), 1),
        (Limits(max_experts=64, experts_multiple_of=8), 9),
        (Limits(experts_multiple_of=4096), 1),
    ],
    ids=str,
)
def test_what_is_offered_is_within_the_limits(limits: Limits, least: int) -> None:
    for offered in (any_experts(limits, least), listed_experts(limits, least)):
        assert offered
        assert all(n >= least and n % limits.experts_multiple_of == 0 for n in offered)
        assert max(offered) <= (limits.max_experts or max(offered))


def test_every_k_up_to_64_is_offered_within_the_claim_and_what_is_left() -> None:
    assert {*range(1, 65)} <= {*any_slots(300, ALL, Claim())}
    assert any_slots(5, ALL, Claim()) == (1, 2, 3, 4, 5)
    assert any_slots(300, ALL, Claim(top_k=(11,))) == (11,)
    assert max(any_slots(300, Limits(max_top_k=20), Claim())) == 20


def test_draws_leave_the_lists_for_one_in_nine_and_keep_a_filter() -> None:
    choose, drawn = seeded(0), Capabilities(claims=(Claim(groups=(None,), expert_table=(False,)),))
    configs = [choose_router(choose, drawn) for _ in range(2000)]
    beside = [c for c in configs if c.num_experts not in (*EXPERTS, *MORE_EXPERTS)]
    assert 0.05 < len(beside) / len(configs) < 0.15
    assert any(c.top_k not in TOP_K and c.top_k < c.num_experts - 1 for c in configs)
    few = Focus(offers={"num_experts": lambda offered: [n for n in offered if n <= 64]})
    narrowed = narrowed_by(seeded(0), few.offers)
    small = {choose_router(narrowed, drawn).num_experts for _ in range(2000)}
    assert max(small) <= 64
    assert small > {*EXPERTS}, "the range is drawn from under a filter, too"

"""Seeded cases: the n-th follows from what makes it, a name and n alone."""

from __future__ import annotations

import random
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from moe_routing.conformance.checking.search import drawn_cases
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.generators.choices import BATCHED, BUDGET, Focus, choose_call
from moe_routing.conformance.generators.seeds import Seeded, steady_seed
from moe_routing.conformance.trial.few import repeats
from moe_routing.conformance.trial.memo import contents
from moe_routing.implementations import Capabilities, Limits

SEEDED = Seeded(partial(choose_call, capabilities=Capabilities(), focus=Focus()))


def of(name: str, count: int) -> list[object]:
    """The cases of a name, as values that are equal where the cases are."""
    return [(str(case.config), contents(case.inputs)) for case in SEEDED.examples(name, count)]


def test_fewer_are_the_first_of_more() -> None:
    assert of("0/a", 3) == of("0/a", 6)[:3]


def test_another_name_gives_others() -> None:
    assert not set(of("0/a", 6)) & set(of("1/a", 6))


def test_no_two_are_the_same() -> None:
    assert len(set(of("0/a", 40))) == 40


def test_a_seed_is_what_hypothesis_draws_of_the_same_bytes() -> None:
    drawn: list[int] = []

    @settings(database=None)
    @given(st.integers(0, 2**64 - 1))
    def draw(seed: int) -> None:
        drawn.append(seed)

    for number in range(20):
        draw.hypothesis.fuzz_one_input(random.Random(f"0/a/{number}").randbytes(8))
    assert drawn == [steady_seed("0/a", number) for number in range(20)]


def test_a_clause_draws_them_by_the_seed_of_the_run_and_its_own_id() -> None:
    cases = drawn_cases(CLAUSES["weights.match"], Capabilities(), suite_seed=5, max_examples=2)
    assert [(str(case.config), contents(case.inputs)) for case in cases] == of("5/weights.match", 2)


def test_some_cases_of_many_experts_are_batches_of_few_tokens() -> None:
    drawn = [*SEEDED.examples("0/batches", 300)]
    whole = [case.inputs.num_tokens * case.config.num_experts for case in drawn]
    batches = [case for case, size in zip(drawn, whole, strict=True) if size > BUDGET]
    assert len(batches) > 10
    assert max(whole) <= BATCHED
    for case in batches:
        found = repeats(case)
        assert found is not None
        assert found.few.inputs.num_tokens * case.config.num_experts <= BUDGET
    assert any(
        case.inputs.num_tokens > 64 and case.config.num_experts >= 256 for case in batches
    ), "many tokens beside many experts"


def test_a_clause_that_chooses_its_tokens_and_a_limit_have_none() -> None:
    focus = Focus(offers={"num_tokens": lambda offered: [1]})
    one = Seeded(partial(choose_call, capabilities=Capabilities(), focus=focus))
    assert {case.inputs.num_tokens for case in one.examples("a", 60)} == {1}
    claims = Capabilities(limits=Limits(max_tokens=40))
    few = Seeded(partial(choose_call, capabilities=claims, focus=Focus()))
    assert max(case.inputs.num_tokens for case in few.examples("a", 200)) <= 40

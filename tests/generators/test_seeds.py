"""Seeded cases: the n-th follows from what makes it, a name and n alone."""

from __future__ import annotations

from functools import partial

from moe_routing.conformance.checking.search import drawn_cases
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.generators.choices import Focus, choose_case
from moe_routing.conformance.generators.seeds import Seeded
from moe_routing.conformance.trial.memo import contents
from moe_routing.implementations import Capabilities

SEEDED = Seeded(partial(choose_case, capabilities=Capabilities(), focus=Focus()))


def of(name: str, count: int) -> list[object]:
    """The cases of a name, as values that are equal where the cases are."""
    return [(str(case.config), contents(case.inputs)) for case in SEEDED.examples(name, count)]


def test_fewer_are_the_first_of_more() -> None:
    assert of("0/a", 3) == of("0/a", 6)[:3]


def test_another_name_gives_others() -> None:
    assert not set(of("0/a", 6)) & set(of("1/a", 6))


def test_no_two_are_the_same() -> None:
    assert len(set(of("0/a", 40))) == 40


def test_a_clause_draws_them_by_the_seed_of_the_run_and_its_own_id() -> None:
    cases = drawn_cases(CLAUSES["weights.match"], Capabilities(), suite_seed=5, max_examples=2)
    assert [(str(case.config), contents(case.inputs)) for case in cases] == of("5/weights.match", 2)

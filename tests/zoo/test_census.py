"""The proof of the suite: every mutant is caught, and every clause catches one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from moe_routing.conformance.checking.profiles import PROFILES
from moe_routing.conformance.clauses import CLAUSES, select_clauses
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.conformance.zoo.census.census import Census, take
from moe_routing.conformance.zoo.census.matrix import Kill
from moe_routing.conformance.zoo.census.plan import SOON, CensusPlan

SEED = 0
FULL = CensusPlan(
    clauses=tuple(clause.id for clause in select_clauses([])),
    seeds=(SEED,),
    max_examples=PROFILES["ci"].max_examples,
    mutants=tuple(MUTANTS),
)


SIZED = ("tiers", "shapes", "expert_sizes")
LARGE = {
    name
    for name, mutant in MUTANTS.items()
    if any(
        stage.__module__.endswith((".tiers", ".shapes", ".expert_sizes", ".gradient_sums"))
        for stage in mutant.stages.values()
    )
}
"""Those that are wrong at sizes which cost too much to be drawn often."""

LATE = 0.05
"""The share of the others that may be caught later than soon, or only by constructed cases."""


@pytest.fixture(scope="module")
def census() -> Census:
    """The least census; ``tox -e nightly`` finds every kill, and makes every case smaller."""
    return take(replace(FULL, least=True, large=frozenset(LARGE), late=LATE, reduced_of=6))


def test_every_mutant_is_caught_by_a_clause_that_names_its_family(census):
    assert not census.survivors, (
        "nothing catches these; sharpen a clause, an event or a generator, "
        "or name their families in a clause that catches them"
    )


def test_nearly_every_mutant_is_caught_soon_by_drawn_cases(census):
    due = [name for name in MUTANTS if name not in LARGE]
    late = [name for name in due if (census.draws(name, SEED) or SOON + 1) > SOON]
    assert len(late) <= LATE * len(due), f"late or only by constructed cases: {late}"


def test_every_clause_catches_a_mutant_of_a_family_that_it_names(census):
    assert not census.idle, "a clause that catches nothing proves nothing: write its mutant"


def test_the_smallest_failing_cases_are_small(census):
    assert len(census.smallest) >= len(MUTANTS) / 6
    sizes = {n: each for n, each in census.smallest.items() if not MUTANTS[n].needs}
    large = {n: (each.tokens, each.experts) for n, each in sizes.items() if not each.readable}
    assert len(large) <= 0.1 * len(sizes), f"tokens and experts of what is too large: {large}"


def test_a_mutant_that_nothing_kills_is_reported():
    harmless = replace(MUTANTS["scale-skipped"], name="harmless", stages={})
    MUTANTS["harmless"] = harmless
    try:
        plan = CensusPlan(
            clauses=("weights.scale",), seeds=(0,), max_examples=5, mutants=("harmless",)
        )
        found = take(plan)
    finally:
        del MUTANTS["harmless"]
    assert found.survivors == [("harmless", 0)]
    assert not found.ok


def test_a_clause_that_kills_nothing_is_reported():
    lenient = replace(CLAUSES["weights.scale"], id="weights.lenient", check=lambda trial: None)
    CLAUSES["weights.lenient"] = lenient
    try:
        plan = CensusPlan(
            clauses=("weights.lenient", "weights.scale"),
            seeds=(0,),
            max_examples=10,
            mutants=("scale-skipped",),
        )
        found = take(plan)
    finally:
        del CLAUSES["weights.lenient"]
    assert found.idle == ["weights.lenient"]
    assert found.ok


SCALE_TWICE = CensusPlan(
    clauses=("weights.scale", "weights.tiny-norm"),
    seeds=(0,),
    max_examples=20,
    mutants=("scale-twice",),
)
"""Both clauses catch it; only the first names its family."""


def test_a_kill_by_a_clause_that_does_not_name_the_family_does_not_count():
    found = take(SCALE_TWICE)
    assert [(kill.clause, kill.named) for kill in found.kills] == [
        ("weights.scale", True),
        ("weights.tiny-norm", False),
    ]
    assert (found.survivors, found.idle) == ([], ["weights.tiny-norm"])
    found = take(replace(SCALE_TWICE, clauses=("weights.tiny-norm",)))
    assert found.survivors == [("scale-twice", 0)]


def cells(kills: Iterable[Kill]) -> list[tuple]:
    return [(kill.mutant, kill.clause, kill.event, kill.drawn) for kill in kills]


LEAST = CensusPlan(
    clauses=("weights.scale", "weights.match", "invariance.expert-relabel"),
    seeds=(0, 1),
    max_examples=20,
    mutants=("scale-twice", "ids-wrap-at-256", "scale-skipped"),
)


def pairs(kills: Iterable[Kill]) -> list[tuple]:
    return [(kill.mutant, kill.clause) for kill in kills]


@pytest.fixture(scope="module")
def whole() -> Census:
    return take(LEAST)


@pytest.mark.parametrize(("large", "late"), [((), 0.0), (("ids-wrap-at-256",), 0.0), ((), 1.0)])
def test_the_least_census_leaves_no_other_survivors_and_no_other_clause_idle(whole, large, late):
    least = take(replace(LEAST, least=True, large=frozenset(large), late=late))
    assert (least.survivors, least.idle) == (whole.survivors, whole.idle)
    assert 0 < least.answers < whole.answers
    assert {*pairs(least.kills)} < {*pairs(whole.kills)}


def test_the_least_census_runs_a_settled_mutant_where_a_clause_would_be_idle():
    plan = replace(LEAST, clauses=("weights.scale", "weights.match"), seeds=(0,), least=True)
    plan = replace(plan, mutants=("scale-twice",))
    assert [kill.clause for kill in take(plan).kills if kill.named] == [*plan.clauses]


def test_the_same_seed_takes_the_same_census_whatever_the_jobs():
    plan = CensusPlan(
        clauses=("weights.scale", "selection.bias-steers"),
        seeds=(3,),
        max_examples=15,
        mutants=("scale-twice", "bias-ignored", "bfloat16-bias"),
    )
    assert cells(take(plan).kills) == cells(take(plan, jobs=2).kills)

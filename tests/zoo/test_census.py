"""The proof of the suite: every mutant is caught, and every clause catches one."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from moe_routing.conformance.checking.profiles import PROFILES
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.conformance.zoo.census.census import SOON, Census, CensusPlan, take

SEED = 0
JOBS = min(2, os.cpu_count() or 1)


@pytest.fixture(scope="module")
def census() -> Census:
    plan = CensusPlan(
        clauses=tuple(CLAUSES), seeds=(SEED,), max_examples=PROFILES["ci"], mutants=tuple(MUTANTS)
    )
    return take(plan, jobs=JOBS)


def test_every_mutant_is_caught_by_a_clause_that_names_its_family(census):
    assert not census.survivors, (
        "nothing catches these; sharpen a clause, an event or a generator, "
        "or name their families in a clause that catches them"
    )


def test_nearly_every_mutant_is_caught_soon_by_drawn_cases(census):
    late = [name for name in MUTANTS if (census.draws(name, SEED) or SOON + 1) > SOON]
    assert census.soon(SEED) >= 0.95, f"late or only by constructed cases: {late}"


def test_every_clause_catches_a_mutant_of_a_family_that_it_names(census):
    assert not census.idle, "a clause that catches nothing proves nothing: write its mutant"


def test_the_smallest_failing_cases_are_small(census):
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


def test_a_kill_by_a_clause_that_does_not_name_the_family_does_not_count():
    plan = CensusPlan(
        clauses=("weights.dtype",), seeds=(0,), max_examples=20, mutants=("tuple-swapped",)
    )
    found = take(replace(plan, clauses=("layout.well-formed", "weights.dtype")))
    assert {kill.clause for kill in found.kills if kill.named} == {"layout.well-formed"}


def test_the_same_seed_takes_the_same_census_whatever_the_jobs():
    plan = CensusPlan(
        clauses=("weights.scale", "selection.bias-steers"),
        seeds=(3,),
        max_examples=15,
        mutants=("scale-twice", "bias-ignored", "bfloat16-bias"),
    )

    def cells(census: Census) -> list[tuple]:
        return [(k.mutant, k.clause, k.event, k.drawn) for k in census.kills]

    assert cells(take(plan)) == cells(take(plan, jobs=2))

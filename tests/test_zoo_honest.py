"""Honest variants pass; what they have to declare, they cannot leave undeclared."""

from __future__ import annotations

import os

import pytest

from moe_routing.conformance.clause_run import check_clause
from moe_routing.conformance.clauses import CLAUSES, select_clauses
from moe_routing.conformance.plan import PROFILES, Plan
from moe_routing.conformance.zoo import HONEST
from moe_routing.conformance.zoo import census as census_of
from moe_routing.implementations import Numerics

JOBS = min(8, os.cpu_count() or 1)
ENOUGH = 200_000
"""The answers of honest variants that are judged at the least."""

UNDECLARED = {
    "tf32": "logits.lora-delta",
    "tanh-sigmoid": "scores.match",
    "softplus-as-written": "robustness.underflow",
    "index-in-the-mantissa": "selection.valid-top-k",
}
"""A clause that each variant fails where it does not declare its numerics."""


def test_no_honest_variant_is_refused():
    plan = census_of.Plan(
        clauses=tuple(CLAUSES),
        seeds=(0,),
        max_examples=PROFILES["nightly"],
        variants=tuple(HONEST),
    )
    found = census_of.take(plan, jobs=JOBS)
    assert not found.alarms, [(a.variant, a.clause, a.message) for a in found.alarms]
    assert found.asked >= ENOUGH, f"{found.asked} answers are too few to say anything"


@pytest.mark.parametrize("name", UNDECLARED)
def test_a_coarser_algorithm_that_is_not_declared_fails(name):
    plan = Plan(clauses=select_clauses([UNDECLARED[name]]), max_examples=PROFILES["ci"])
    declared = check_clause(HONEST[name].adapter(), plan.clauses[0], plan)
    assert declared.status == "pass", declared.message
    bare = check_clause(HONEST[name].adapter(declared=False), plan.clauses[0], plan)
    assert bare.status == "fail", f"{name} passes without declaring {HONEST[name].declares}"


def test_every_relaxation_has_a_variant_that_needs_it():
    declared = {
        field
        for variant in HONEST.values()
        for field, value in vars(variant.declares).items()
        if value != getattr(Numerics(), field)
    }
    assert declared == set(vars(Numerics()))

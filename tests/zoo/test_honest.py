"""Honest variants pass; what they have to declare, they cannot leave undeclared."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.kinds import trial_of
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.outcome import Outcome, evaluate
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.checking.scope import adapter_scope
from moe_routing.conformance.clauses import CLAUSES, select_clauses
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.zoo import HONEST
from moe_routing.conformance.zoo.census.matrix import Alarm, Count, Task
from moe_routing.implementations import Capabilities, Numerics
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs
from moe_routing.reference import route as reference

DRAWS = 40
"""The cases drawn for a clause and a variant; ``tox -e nightly`` draws 2000, from five seeds."""

DRAWS_OF_PERMUTATIONS = 20
"""The permutations drawn for a clause and a variant: its laws are exact."""

DRAWS_OF_GRADIENTS = 8
"""The calls of gradients drawn for a clause and a variant."""

ONE_IN, ONE_IN_OF_SERIES = 3, 12
"""A clause runs on one variant in so many, another clause on the others; batches of every size
cost more than all else. All of them run every night."""

ONE_IN_CONSTRUCTED = 3
"""Of these, one in so many is called with what is constructed for the clause as well: most of that
is constructed for many clauses, and the variants take turns."""

ENOUGH = 20_000
"""The answers of honest variants that are judged at the least."""

UNDECLARED = {
    "tf32": "logits.lora-delta",
    "tanh-sigmoid": "weights.match",
    "softplus-as-written": "robustness.underflow",
    "index-in-the-mantissa": "selection.valid-top-k",
}
"""A clause that each variant fails where it does not declare its numerics."""


DRAWS_OF_EXPERTS = 10
"""The calls of experts drawn for a clause and a variant: two are run for each that is judged."""


def asked(clause: str) -> int:
    """The cases that a run asks of a clause for a variant, which draws them or a share of them."""
    few = {"permute": DRAWS_OF_PERMUTATIONS, "gradients": DRAWS_OF_GRADIENTS}
    few |= {"experts": DRAWS_OF_EXPERTS, "drop": DRAWS_OF_PERMUTATIONS}
    few["balance"] = DRAWS_OF_PERMUTATIONS
    return few.get(CLAUSES[clause].method, DRAWS)


def draws(clause: str) -> int:
    """The cases drawn for a clause and a variant."""
    return CLAUSES[clause].draws(asked(clause))


@cache
def checked_by(clause: str) -> tuple[str, ...]:
    """The variants to run a clause on: some of those that it applies to."""
    another = CLAUSES[clause].layout is not None  # which only that stage makes of a router's answer
    variants = {n: each for n, each in HONEST.items() if not another or "answer" in each.stages}
    made = {name: variant.adapter() for name, variant in variants.items()}
    applies = tuple(
        name
        for name, router in made.items()
        if adapter_scope(router, CLAUSES[clause], router.capabilities()) is None
    )
    series = any(EVENTS[slug].series for slug in CLAUSES[clause].events)
    step = ONE_IN_OF_SERIES if series else ONE_IN
    return applies[list(CLAUSES).index(clause) % step :: step] or applies


@pytest.mark.parametrize("clause", CLAUSES)
def test_no_honest_variant_is_refused(clause: str):
    number, variants = draws(clause), checked_by(clause)
    some = variants[list(CLAUSES).index(clause) % ONE_IN_CONSTRUCTED :: ONE_IN_CONSTRUCTED]
    task = Task(clause=clause, seed=0, max_examples=asked(clause))
    found = [
        *replace(task, variants=variants, part="drawn").run(),
        *replace(task, variants=some or variants, part="constructed").run(),
    ]
    alarms = [each for each in found if isinstance(each, Alarm)]
    assert not alarms, [(a.variant, a.clause, a.message) for a in alarms]
    answers = sum(each.answers for each in found if isinstance(each, Count))
    assert answers >= number * len(variants) > 0, "some were checked too little"


def test_every_variant_is_checked_enough():
    assert sum(draws(clause) * len(checked_by(clause)) for clause in CLAUSES) >= ENOUGH
    assert {name for clause in CLAUSES for name in checked_by(clause)} == set(HONEST)


GROUPS_TIE = Case(
    config=RouterConfig(
        num_experts=6,
        top_k=4,
        score="sigmoid",
        groups=Groups(count=3, kept=2, top=2, fill=0.0),
    ),
    inputs=RouterInputs(
        hidden=np.ones((1, 1), np.float32),
        gate_weight=np.zeros((6, 1), np.float32),
        selection_bias=np.float32([0.5, 0.5, 0.0, 0.0, 1.0, -1.0]),
    ),
)
"""The last two groups tie; with the third one kept, a fill of 0 beats its second expert."""

LOST_EXPERTS_TIE = Case(
    config=RouterConfig(
        num_experts=4,
        top_k=2,
        weights_from="softmax_of_selected",
        renormalize=Renormalize(floor=1e-12),
    ),
    inputs=RouterInputs(
        hidden=np.ones((1, 1), np.float32),
        gate_weight=np.float32([[-120.0], [0.0], [0.0], [0.0]]),
        gate_bias=np.float32([0.0, -np.inf, -np.inf, 0.0]),
        selection_bias=np.float32([0.0, 0.0, 0.0, -100.0]),
    ),
)
"""Three scores are 0, of the logits -120, -inf and -inf; a softmax of the last two is NaN."""


@pytest.mark.parametrize(
    ("clause", "case"),
    [("groups.kept-only", GROUPS_TIE), ("robustness.underflow", LOST_EXPERTS_TIE)],
)
def test_a_tie_that_goes_the_other_way_may_lead_where_the_references_does_not(
    clause: str, case: Case
):
    lowest, highest = reference(case.config, case.inputs), HONEST["ties-to-the-highest"].adapter()
    other = highest.route(case.config, case.inputs)
    assert set(lowest.expert_ids[0]) != set(other.expert_ids[0]), "no tie: this test saw nothing"
    assert evaluate(CLAUSES[clause], trial_of(highest, case, "route")) == Outcome()


@pytest.mark.parametrize("name", UNDECLARED)
def test_a_coarser_algorithm_that_is_not_declared_fails(name):
    plan = Plan(clauses=select_clauses([UNDECLARED[name]]))
    declared = check_clause(HONEST[name].adapter(), plan.clauses[0], plan)
    assert declared.status == "pass", declared.message
    bare = check_clause(HONEST[name].adapter(declared=False), plan.clauses[0], plan)
    assert bare.status == "fail", f"{name} passes without declaring {HONEST[name].declares}"


def test_a_tanh_form_that_is_not_declared_fails_in_a_constructed_case():
    (clause,) = select_clauses(["scores.match"])
    case = EVENTS["small-sigmoid"].constructed(clause.narrowed(Capabilities()))
    declared, bare = (HONEST["tanh-sigmoid"].adapter(declared=each) for each in (True, False))
    assert evaluate(clause, trial_of(declared, case, "route")) == Outcome()
    assert evaluate(clause, trial_of(bare, case, "route")).broken


def test_every_relaxation_has_a_variant_that_needs_it():
    declared = {
        field
        for variant in HONEST.values()
        for field, value in vars(variant.declares).items()
        if value != getattr(Numerics(), field)
    }
    assert declared == set(vars(Numerics()))

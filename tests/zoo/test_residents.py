"""The zoo's residents: every family of bugs, each named, cited, and made of one right router."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from for_each import for_each
from nightly import SERIES, nightly

from moe_routing.conformance import select_clauses
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.zoo import HONEST, MUTANTS, NoSuchResident, residents, select_residents
from moe_routing.conformance.zoo.families import FAMILIES, LATER
from moe_routing.conformance.zoo.residents import ROUTED, WHOLE
from moe_routing.conformance.zoo.router.balancer import BALANCING, StagedBalancer
from moe_routing.conformance.zoo.router.composer import COMPOSING, StagedComposer
from moe_routing.conformance.zoo.router.differentiator import (
    DIFFERENTIATING,
    StagedDifferentiator,
)
from moe_routing.conformance.zoo.router.dropper import DROPPING, StagedDropper
from moe_routing.conformance.zoo.router.learner import LEARNING, StagedLearner
from moe_routing.conformance.zoo.router.padder import PADDING, StagedPadder
from moe_routing.conformance.zoo.router.permuter import PERMUTING, StagedPermuter
from moe_routing.conformance.zoo.router.ranks import ON_RANKS, StagedRanks
from moe_routing.conformance.zoo.router.replayer import REPLAYING, StagedReplayer
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.conformance.zoo.router.runner import RUNNING, StagedRunner
from moe_routing.conformance.zoo.router.sharder import SHARDING, StagedSharder
from moe_routing.conformance.zoo.router.stages import RIGHT
from moe_routing.conformance.zoo.router.work import PlainWork, Work
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs

STAGES = {
    StagedRouter: set(RIGHT),
    StagedPermuter: set(PERMUTING),
    StagedDifferentiator: set(DIFFERENTIATING),
    StagedRunner: set(RUNNING),
    StagedLearner: set(LEARNING),
    StagedReplayer: set(REPLAYING),
    StagedSharder: set(SHARDING),
    StagedRanks: set(ON_RANKS),
    StagedDropper: set(DROPPING),
    StagedPadder: set(PADDING),
    StagedBalancer: set(BALANCING),
    StagedComposer: set(COMPOSING),
}
CITED = re.compile(r"[\w.-]+/[\w.-]+(#\d+|@[0-9a-f]{7,}| \d+\.\d+\.\d+, \w+)")


def test_there_are_enough_of_both_kinds():
    assert len(MUTANTS) >= 80
    assert len(HONEST) >= 20


def test_every_family_has_a_mutant_and_every_other_one_says_what_it_waits_for():
    families = Counter(mutant.family for mutant in MUTANTS.values())
    empty = sorted(set(FAMILIES) - set(families))
    assert not empty, f"no mutant is of {empty}: write one, or move the family to LATER"
    assert not set(FAMILIES) & set(LATER)
    assert all(LATER.values())


def test_every_family_that_a_clause_names_is_in_the_zoo():
    for clause in CLAUSES.values():
        unknown = set(clause.bugs) - set(FAMILIES)
        assert not unknown, f"{clause.id} names {unknown}, of which the zoo has no mutant"
        assert clause.bugs, f"{clause.id} names no family of bugs that it would catch"


@for_each(MUTANTS)
def test_a_mutant_cites_where_it_happened_and_says_what_it_did(mutant):
    assert CITED.fullmatch(mutant.real), f"{mutant.real!r} is no project with an issue or a commit"
    assert mutant.harm.endswith(".")
    assert set(mutant.stages) <= STAGES[mutant.makes], "replaces a stage that there is not"


@for_each(HONEST)
def test_a_variant_says_why_it_is_right(variant):
    assert variant.why.endswith((".", ")."))
    assert set(variant.stages) <= STAGES[variant.makes]


@pytest.mark.parametrize("claims", [WHOLE, ROUTED], ids=["without logits", "with logits"])
def test_the_router_that_they_are_made_of_is_right(claims):
    stages = {"reported_logits": lambda w: w.logits} if claims is ROUTED else {}
    router = StagedRouter("plain", stages, claims)
    every, about_logits = select_clauses([]), select_clauses(["logits.*", "layout.*"])
    some = every[int(claims is ROUTED) :: 2] + about_logits
    plan = Plan(clauses=nightly(some, every), max_examples=5, series=nightly(SERIES, None))
    found = {clause.id: check_clause(router, clause, plan).status for clause in plan.clauses}
    assert set(found.values()) <= {"pass", "unsupported"}, found


def test_the_permuter_that_they_are_made_of_is_right():
    permuter = StagedPermuter("plain", {}, WHOLE)
    plan = Plan(clauses=select_clauses(["permutation.*"]), max_examples=20)
    found = {clause.id: check_clause(permuter, clause, plan).status for clause in plan.clauses}
    assert set(found.values()) == {"pass"}, found


def test_the_differentiator_that_they_are_made_of_is_right():
    plain = StagedDifferentiator("plain", {}, ROUTED)
    plan = Plan(clauses=select_clauses(["gradients.*"]), max_examples=10)
    found = {clause.id: check_clause(plain, clause, plan).status for clause in plan.clauses}
    assert set(found.values()) <= {"pass", "unsupported"}, found


def test_the_runner_that_they_are_made_of_is_right():
    runner = StagedRunner("plain", {}, WHOLE)
    plan = Plan(clauses=select_clauses(["experts.*"]), max_examples=20)
    found = {clause.id: check_clause(runner, clause, plan).status for clause in plan.clauses}
    assert {each for id_, each in found.items() if "gradients" not in id_} == {"pass"}, found


def test_the_learner_that_they_are_made_of_is_right():
    learner = StagedLearner("plain", {}, WHOLE)
    plan = Plan(clauses=select_clauses(["experts.gradients*"]), max_examples=20)
    found = {clause.id: check_clause(learner, clause, plan).status for clause in plan.clauses}
    assert set(found.values()) == {"pass"}, found


def test_the_replayer_that_they_are_made_of_is_right():
    replayer = StagedReplayer("plain", {}, WHOLE)
    plan = Plan(clauses=select_clauses(["replay.*"]), max_examples=20)
    found = {clause.id: check_clause(replayer, clause, plan).status for clause in plan.clauses}
    assert set(found.values()) == {"pass"}, found


def test_the_balancer_that_they_are_made_of_is_right():
    balancer = StagedBalancer("plain", {}, WHOLE)
    plan = Plan(clauses=select_clauses(["balance.*"]), max_examples=20)
    found = {clause.id: check_clause(balancer, clause, plan).status for clause in plan.clauses}
    assert set(found.values()) == {"pass"}, found


def test_the_dropper_that_they_are_made_of_is_right():
    dropper = StagedDropper("plain", {}, WHOLE)
    plan = Plan(clauses=select_clauses(["capacity.*"]), max_examples=20)
    found = {clause.id: check_clause(dropper, clause, plan).status for clause in plan.clauses}
    assert set(found.values()) == {"pass"}, found


def test_the_padder_that_they_are_made_of_is_right():
    padder = StagedPadder("plain", {}, WHOLE)
    clauses = [each for each in select_clauses(["padding.*"]) if each.method == "route_padded"]
    plan = Plan(clauses=clauses, max_examples=20)
    found = {clause.id: check_clause(padder, clause, plan).status for clause in plan.clauses}
    assert set(found.values()) == {"pass"}, found


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'bias-ignored': the name is taken"):
        residents.mutant("bias-ignored", "M04", "logits", real="a/b#1")(lambda w: None)
    with pytest.raises(ValueError, match="'bias-ignored': the name is taken"):
        residents.honest("bias-ignored", "logits")(lambda w: None)


def test_a_mutant_needs_a_harm_and_a_known_family():
    def documented(w):
        """It did harm."""

    with pytest.raises(ValueError, match=r"'new': 'M99' is no family of .*families\.py"):
        residents.mutant("new", "M99", "logits", real="a/b#1")(documented)
    with pytest.raises(ValueError, match="'new': it has no docstring"):
        residents.mutant("new", "M04", "logits", real="a/b#1")(lambda w: None)
    with pytest.raises(ValueError, match="'new': real is empty"):
        residents.mutant("new", "M04", "logits", real="")(documented)
    assert "new" not in MUTANTS


def test_residents_are_selected_by_globs_in_the_order_of_the_zoo():
    assert select_residents(["scale-*"], "mutants")[0] == "scale-skipped"
    assert select_residents([]) == [*MUTANTS, *HONEST]
    assert set(select_residents([], "variants")) == set(HONEST)
    with pytest.raises(NoSuchResident, match=r"matches 'bias-ignord': did you mean bias-ignored"):
        select_residents(["bias-ignord"])


CONFIG = RouterConfig(
    num_experts=8,
    top_k=3,
    score="sigmoid",
    groups=Groups(count=4, kept=2),
    renormalize=Renormalize(eps=1e-20),
    scale=2.5,
)


def inputs() -> RouterInputs:
    rng = np.random.default_rng(3)
    return RouterInputs(
        hidden=rng.standard_normal((5, 16)).astype(np.float32),
        gate_weight=rng.standard_normal((8, 16)).astype(np.float32),
        selection_bias=rng.standard_normal(8).astype(np.float32),
    )


ROUTERS = [
    resident
    for resident in (*MUTANTS.values(), *HONEST.values())
    if resident.makes is StagedRouter
    if not {"answer", "parting", "contribution"} & set(resident.stages)
]


@for_each({resident.name: resident for resident in ROUTERS})
def test_work_shared_with_the_plain_router_changes_no_bit(resident):
    alone = Work(resident.stages, RIGHT, CONFIG, inputs(), resident.claims, {})
    plain = PlainWork(RIGHT, CONFIG, inputs(), WHOLE)
    shared = Work(resident.stages, RIGHT, CONFIG, inputs(), resident.claims, {}, plain)
    with np.errstate(all="ignore"):
        try:
            expected = alone.answer
        except Exception as error:
            with pytest.raises(type(error)):
                _ = shared.answer
            return
        for name, value in vars(shared.answer).items():
            other = getattr(expected, name)
            if value is None:
                assert other is None
            else:
                np.testing.assert_array_equal(value, other, strict=True)


def test_numbers_that_lie_otherwise_are_not_the_plain_routers():
    rng = np.random.default_rng(3)
    given = RouterInputs(
        hidden=rng.standard_normal((5, 16)).astype(np.float32),
        gate_weight=rng.standard_normal((64, 16)).astype(np.float32),
    )
    by_column = {"logits": lambda work: np.asfortranarray(RIGHT["logits"](work))}
    softmax = RouterConfig(num_experts=64, top_k=4)
    plain = PlainWork(RIGHT, softmax, given, WHOLE)
    alone = Work(by_column, RIGHT, softmax, given, WHOLE, {})
    shared = Work(by_column, RIGHT, softmax, given, WHOLE, {}, plain)
    assert (alone.scores != plain.value("scores")).any(), "added in the same order"
    np.testing.assert_array_equal(shared.scores, alone.scores, strict=True)


def test_the_plain_router_notes_what_each_stage_reads():
    plain = PlainWork(RIGHT, CONFIG, inputs(), WHOLE)
    assert plain.can("answer")
    assert plain.reads["biased"] == {"scores", "selection_bias"}
    assert plain.sources("biased", frozenset({"logits", "config"})) == {"logits", "config"}
    assert plain.sources("biased", frozenset({"logits", "scores"})) == {"scores"}
    bad = RouterConfig.unchecked(**{**vars(CONFIG), "top_k": 9})
    assert not PlainWork(RIGHT, bad, inputs(), WHOLE).can("answer")


def test_no_router_can_change_what_the_plain_router_has_done():
    plain = PlainWork(RIGHT, CONFIG, inputs(), WHOLE)
    work = Work({"weights": RIGHT["weights"]}, RIGHT, CONFIG, inputs(), WHOLE, {}, plain)
    with pytest.raises(ValueError, match="read-only"):
        work.scores[0] = 0.0
    assert work.answer is plain.value("answer")

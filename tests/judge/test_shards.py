"""Judging shards: what a rank may answer, against sums over its routes one by one."""

from __future__ import annotations

import random

import numpy as np
import pytest
from near_experts import ran

from moe_routing.conformance.calls.shards import ShardsCase
from moe_routing.conformance.cases.files import case_from_json, case_to_json
from moe_routing.conformance.cases.kinds import KINDS, trial_of
from moe_routing.conformance.checking.outcome import Outcome, evaluate
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.generators.experts import Wishes
from moe_routing.conformance.generators.shards import choose_shards_case
from moe_routing.conformance.generators.shards_smaller import keep_placed, keep_ranks
from moe_routing.conformance.judge.shards import Sharded
from moe_routing.conformance.trial.shards import sharded_of
from moe_routing.conformance.zoo import HONEST, MUTANTS
from moe_routing.implementations import Capabilities, load_adapter
from moe_routing.implementations.shards import PLACEMENTS, Shards, placed
from moe_routing.reference import Placement, expert_outputs, experts


def drawn(seed: int, capabilities: Capabilities | None = None) -> ShardsCase:
    rng = random.Random(seed)
    return choose_shards_case(
        lambda _, offered: rng.choice(offered),
        capabilities or Capabilities(),
        Wishes(offers={"values": ("exact",), "tokens": (1, 2, 5, 8)}),
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_rank_may_answer_the_sum_over_its_own_routes(seed: int) -> None:
    sharded = sharded_of(drawn(seed))
    inputs, place = sharded.inputs, sharded.placement
    outputs = expert_outputs(sharded.config, inputs)
    if sharded.config.weight_on == "output":
        outputs = outputs * inputs.weights[:, :, None]
    for rank in sharded.ranks:
        due, local = sharded.part(rank).output, place.local(rank).tolist()
        for token in np.flatnonzero(sharded.decided(rank)):
            own = [k for k, e in enumerate(inputs.expert_ids[token]) if e in local]
            right = outputs[token, own].sum(axis=0)
            assert due.contains(np.where(np.arange(len(due.mid))[:, None] == token, right, 0.0))[
                token
            ].all()


def test_parts_of_a_large_call_are_judged_without_a_radius_where_they_are_right() -> None:
    ids = np.argsort(np.random.default_rng(0).random((128, 4)), axis=1)[:, :2]
    case = ran(ids, 4, activation="silu", hidden=128, width=128, values="normal")
    half = np.array([0, 0, 1, 1])
    sharded = Sharded(
        case.config, case.inputs, Placement(rank_of=half, logical_of=np.arange(4), num_ranks=2)
    )
    answers = []
    for rank in sharded.ranks:
        part = sharded.part(rank)
        answers.append(experts(part.config, part.inputs))
        assert part.permits(answers[rank]).all()
        wrong = answers[rank] + (np.arange(128)[:, None] == 5)
        assert np.argwhere(~part.permits(wrong).all(axis=1)).tolist() == [[5]]
        assert "output" not in vars(part)
    assert sharded.layer.permits(np.sum(answers, axis=0)).all()


@pytest.mark.parametrize("seed", range(8))
def test_a_token_is_undecided_only_where_an_expert_of_it_has_replicas(seed: int) -> None:
    sharded = sharded_of(drawn(seed))
    ids = sharded.inputs.expert_ids
    several = ((ids >= 0) & (sharded.placement.replicas[ids] > 1)).any(axis=1)
    undecided = ~np.all([sharded.decided(rank) for rank in sharded.ranks], axis=0)
    assert (undecided == several).all()


@pytest.mark.parametrize("kind", PLACEMENTS)
@pytest.mark.parametrize("replicas", [False, True])
def test_what_is_drawn_is_claimed_and_so_is_what_is_made_smaller(kind: str, replicas: bool) -> None:
    claimed = Capabilities(shards=Shards(placements=kind, replicas=replicas, max_ranks=4))
    entry = KINDS["shards"]
    for seed in range(12):
        case = drawn(seed, claimed)
        assert entry.claimed(case, claimed), entry.refusals(case, claimed)
        for size in entry.sizes:
            count = size.count(case)
            if count > 1:
                assert size.count(size.keep(case, np.arange(count - 1))) == count - 1


def test_fewer_ranks_and_experts_keep_the_others_where_they_were() -> None:
    case = drawn(3)
    while case.inputs.num_ranks < 3 or case.config.num_experts < 3:
        case = drawn(case.inputs.num_tokens + 11)
    two = keep_ranks(case, np.array([0, 1]))
    assert two.inputs.num_ranks == 2
    assert two.inputs.placement.local(0).tolist() == sorted(case.inputs.placement.local(0))
    fewer = keep_placed(case, np.array([0, 2]))
    assert fewer.config.num_experts == 2
    assert set(fewer.inputs.expert_ids.ravel()) <= {-1, 0, 1}


def test_a_case_file_holds_the_placement() -> None:
    case = drawn(5)
    read, clause = case_from_json(case_to_json(case, clause="shards.sum"))
    assert clause == "shards.sum"
    assert read.inputs.num_ranks == case.inputs.num_ranks
    for name, array in case.inputs.arrays().items():
        np.testing.assert_array_equal(read.inputs.arrays()[name], array)


def test_what_a_rank_is_given_of_others_is_nan() -> None:
    case = drawn(5)
    for rank in range(case.inputs.num_ranks):
        _, inputs, place, given = case.at(rank).arguments(case.inputs)
        assert given == rank
        lost = np.isnan(inputs.up_weight).all(axis=(1, 2))
        assert (lost == ~place.holds(rank)).all()


def test_a_placement_is_of_the_least_kind_that_it_fits() -> None:
    kinds = {placed(drawn(seed).inputs.placement) for seed in range(30)}
    assert kinds == {*PLACEMENTS}


def test_another_split_of_replicas_is_right_and_a_double_one_is_not() -> None:
    clause = CLAUSES["shards.replicas"]
    case = EVENTS["spread-replicas"].constructed(Capabilities())
    for name in ("shard-replicas-by-slot", "shard-replicas-first-alone"):
        assert evaluate(clause, trial_of(HONEST[name].adapter(), case, "shard")) == Outcome()
    twice = MUTANTS["replicas-all-compute"].adapter()
    assert evaluate(clause, trial_of(twice, case, "shard")).failure


def test_the_story_names_the_rank_the_token_and_the_expert() -> None:
    case = EVENTS["spread-moved"].constructed(Capabilities())
    wrong = MUTANTS["map-not-applied"].adapter()
    failure = evaluate(CLAUSES["shards.maps"], trial_of(wrong, case, "shard")).failure
    assert failure is not None
    assert failure.summary.startswith("rank 0: output[0, 0]=")
    assert "rank 0    experts [1, 3]" in failure.details
    assert any("on rank" in line for line in failure.details)


def test_a_backend_with_experts_has_shards_in_one_line() -> None:
    pytest.importorskip("torch")
    adapter = load_adapter("torch")
    case = drawn(9)
    trial = trial_of(adapter, case, "shard")
    assert evaluate(CLAUSES["shards.sum"], trial) == Outcome()
    assert evaluate(CLAUSES["shards.union"], trial) == Outcome()

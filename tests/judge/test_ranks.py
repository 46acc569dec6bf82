"""Judging ranks that run at once: their answers and gradients, held together."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from near_ranks import learned, ranked
from schemas import mistakes

from moe_routing.conformance.calls.ranks import EVERY, RankGradientCase, RanksCase
from moe_routing.conformance.cases.files import case_from_json, case_to_json
from moe_routing.conformance.cases.kinds import KINDS, trial_of
from moe_routing.conformance.checking.outcome import Outcome, evaluate
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.generators.ranks import (
    choose_rank_gradient_case,
    choose_ranks_case,
    keep_ranks_at_home,
)
from moe_routing.conformance.trial.ranks import together_of
from moe_routing.conformance.zoo import HONEST, MUTANTS
from moe_routing.implementations import Capabilities
from moe_routing.implementations.shards import BATCHES, Shards
from moe_routing.reference import expert_gradients, experts
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.formats import INPUT_FORMATS

SCHEMA = Path(__file__).parents[2] / "docs" / "case.schema.json"


def drawn(seed: int, shards: Shards | None = None) -> RanksCase:
    rng = random.Random(seed)
    capabilities = Capabilities(shards=shards or Shards())
    return choose_ranks_case(lambda _, offered: rng.choice(offered), capabilities)


def drawn_gradients(seed: int) -> RankGradientCase:
    rng = random.Random(seed)
    return choose_rank_gradient_case(lambda _, offered: rng.choice(offered), Capabilities())


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("placements", ["even", "blocks", "mapped"])
@pytest.mark.parametrize("ranks", [None, 2, 3])
def test_what_is_drawn_is_claimed(batches: str, placements: str, ranks: int | None) -> None:
    shards = Shards(placements=placements, num_ranks=ranks, batches=batches)
    entry, claimed = KINDS["ranks"], Capabilities(shards=shards)
    for seed in range(12):
        case = drawn(seed, shards)
        assert entry.claimed(case, claimed), entry.refusals(case, claimed)
        if ranks is not None:
            assert case.inputs.num_ranks == ranks


def test_batches_of_other_sizes_are_refused_where_they_are_not_claimed() -> None:
    case = ranked((0, 1, 1))
    even, shared = Shards(batches="even"), Shards(batches="shared")
    refused = KINDS["ranks"].refusals
    assert refused(case, Capabilities(shards=even)) == ["batches of 1, 2 tokens"]
    assert refused(case, Capabilities(shards=shared)) == ["batches='shared'"]
    same = ranked((EVERY,) * 3)
    assert refused(same, Capabilities(shards=even)) == ["batches='even'"]
    assert refused(same, Capabilities(shards=shared)) == []


@pytest.mark.parametrize("seed", range(20))
def test_a_rank_may_answer_the_reference_for_its_own_tokens(seed: int) -> None:
    together = together_of(drawn(seed))
    right = experts(together.config, together.inputs)
    for rank in together.ranks:
        ball, own = together.answer(rank), together.own(rank)
        assert (ball.contains(right[own]) | ~ball.decided).all()


@pytest.mark.parametrize("seed", range(20))
def test_gradients_of_the_reference_are_right_however_they_are_spread(seed: int) -> None:
    case = drawn_gradients(seed)
    together, placement = together_of(case), case.inputs.placement
    right = expert_gradients(case.config, case.inputs.whole, case.inputs.cotangent).arrays()
    given = []
    for rank in together.ranks:
        own, held = together.own(rank), placement.holds(rank)
        split = 1.0 / placement.replicas  # each replica has its share
        shares = (held * split).reshape(-1, 1, 1)
        given.append(
            {
                name: array * shares.reshape(-1, *(1,) * (array.ndim - 1))
                if name in OF_EXPERTS
                else array[own]
                for name, array in right.items()
            }
        )
    judged = together.judged(given)
    assert set(judged) == set(right)
    for each in judged.values():
        assert not (each.wrong & each.permitted.decided).any(), each.name


def test_replicas_that_store_their_parts_are_granted_that_and_one_place_is_not() -> None:
    case = EVENTS["ranked-learned-replicas"].constructed(Capabilities(dtypes=("bfloat16",)))
    assert isinstance(case, RankGradientCase)
    together, placement = together_of(case), case.inputs.placement
    several = placement.replicas > 1
    step = INPUT_FORMATS["bfloat16"].unit_roundoff
    right = expert_gradients(case.config, case.inputs.whole, case.inputs.cotangent).arrays()
    parts = np.zeros_like(right["up_weight"])
    parts[several] = 100.0  # two parts that nearly cancel, each stored
    given = [{"up_weight": right["up_weight"] + parts}, {"up_weight": -parts * (1 + step / 2)}]
    judged = together.judged(given)["up_weight"]
    whole = together.learning.permitted["up_weight"]
    assert (judged.permitted.rad[several] > whole.rad[several]).all()
    assert (judged.permitted.rad[~several] == whole.rad[~several]).all()


@pytest.mark.parametrize("case", [ranked(), learned()], ids=["ranks", "gradients"])
def test_a_case_file_holds_the_homes_of_tokens(case: RanksCase) -> None:
    written = json.loads(json.dumps(case_to_json(case, clause="shards.on-ranks")))
    read, _ = case_from_json(written)
    assert (read.inputs.home == case.inputs.home).all()
    if SCHEMA.is_file():
        schema = json.loads(SCHEMA.read_text())
        assert mistakes(written, schema, schema) == []


def test_fewer_ranks_take_over_the_tokens_of_the_others() -> None:
    case = ranked((0, 1, 1))
    one = keep_ranks_at_home(case, np.array([1]))
    assert one.inputs.num_ranks == 1
    assert one.inputs.home.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("home", "words"),
    [((0, 2, 1), "Expected home in -1..1 but got 2"), ((0, -1, 1), "Expected home to be -1")],
)
def test_a_home_that_is_none_is_refused(home: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ranked(home)


def test_what_a_rank_is_given_is_its_own() -> None:
    case = ranked((0, 1, 1))
    config, batches, placement = case.arguments(case.inputs)
    assert [each.num_tokens for each in batches] == [1, 2]
    lost = np.isnan(batches[0].up_weight).all(axis=(1, 2))
    assert (lost == ~placement.holds(0)).all()
    assert config == case.config


def test_the_story_names_the_rank_its_token_and_the_experts() -> None:
    wrong = MUTANTS["offset-not-subtracted-on-ranks"].adapter()
    case = EVENTS["ranked-several"].constructed(Capabilities())
    failure = evaluate(CLAUSES["shards.on-ranks"], trial_of(wrong, case, "on_ranks")).failure
    assert failure is not None
    assert failure.summary.startswith("rank ")
    assert "tokens  [2, 2] on the ranks, in order" in failure.details
    assert "rank 0    experts [0, 1]" in failure.details


def test_a_gradient_is_named_by_the_rank_that_has_it() -> None:
    case = EVENTS["ranked-learned-several"].constructed(Capabilities())
    twice = MUTANTS["expert-gradients-once-a-rank"].adapter()
    clause = CLAUSES["shards.gradients"]
    failure = evaluate(clause, trial_of(twice, case, "gradients_on_ranks")).failure
    assert failure is not None
    assert failure.summary.startswith("rank 1, expert 2: the gradient of ")


def test_answers_of_another_number_are_malformed() -> None:
    class Short:
        name = "short"

        def capabilities(self) -> Capabilities:
            return Capabilities()

        def on_ranks(
            self, config: object, batches: list[object], placement: object
        ) -> list[object]:
            return batches[:1]

    found = evaluate(CLAUSES["shards.on-ranks"], trial_of(Short(), ranked(), "on_ranks"))
    assert found.error == "malformed answer: on_ranks returned 1 answers, but should return 2"


@pytest.mark.parametrize("name", [n for n in HONEST if n.startswith("ranks-")])
def test_honest_ranks_pass(name: str) -> None:
    adapter = HONEST[name].adapter()
    for slug in ("several", "last-idle", "replicas", "absent", "learned-several"):
        case = EVENTS[f"ranked-{slug}"].constructed(adapter.capabilities())
        if case is None:
            continue
        method = "gradients_on_ranks" if "learned" in slug else "on_ranks"
        clause = CLAUSES["shards.gradients" if "learned" in slug else "shards.on-ranks"]
        assert evaluate(clause, trial_of(adapter, case, method)) == Outcome(), slug


def test_a_replaced_cotangent_keeps_to_the_format() -> None:
    case = learned((0, 1, 0))
    rough = np.full_like(case.inputs.cotangent, 1 / 3)
    with pytest.raises(ValueError, match="cotangent"):
        replace(case.inputs, cotangent=rough, dtype="bfloat16")

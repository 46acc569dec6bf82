"""Scenes: what a constructed case shows is still shown under a claim of fewer K."""

from __future__ import annotations

import numpy as np
import pytest
from nightly import SERIES, nightly

from moe_routing.conformance import Case
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.plan import Plan
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.generators.scenes import Scene, fitting_experts, scenes_for
from moe_routing.implementations import Capabilities, Claim, load_adapter
from moe_routing.implementations.capabilities import Limits
from moe_routing.reference.formats import BFLOAT16

OF_ANOTHER_K = (
    *("one-selected", "odd-top-k", "experts:5", "top-k-above-", "published", "preset:"),
    *("sizes:", "shape:", "grouped-shape:", "wide:", "narrow-norm-of-", "gradient-normed-alone"),
    *("share-of-many-groups", "renormalized-alone", "kept-groups-chosen-whole"),
    "gradient-expert-scale-alone",
)
"""Events that say what K is, or that there are fewer experts than 8."""

OF_ONE = {"gradients.norm-is-differentiated"}
"""Clauses about one expert a token, which no greater K has."""

OUT_OF_REACH = ("norm-scale-decides",)
"""Events that bfloat16 cannot show among as many experts as K = 8 needs."""

ROWS = np.array([[2.0, 1.0, 1.0, 0.0], [-8.0, -9.0, -9.0, -7.0]], np.float32)


def scenes(claim: Claim, limits: Limits | None = None, **changes) -> list[Scene]:
    scene = Scene(**{"logits": ROWS, "top_k": 2, "groups": None, "arrays": {}, **changes})
    capabilities = Capabilities(claims=(claim,), limits=limits or Limits())
    return list(scenes_for(scene, claim, capabilities))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("takes", ["hidden", "logits"])
def test_a_claim_of_one_top_k_reaches_what_has_room_for_it(takes, dtype):
    def lost(top_k, slugs) -> set[str]:
        offered = Capabilities(claims=(Claim(top_k=top_k),), takes=takes, dtypes=(dtype,))
        return {slug for slug in slugs if EVENTS[slug].constructed(offered) is None}

    due = {slug for slug in EVENTS if not slug.startswith((*OF_ANOTHER_K, *OUT_OF_REACH))}
    missing = lost((8,), due)
    assert missing == lost((1, 2, 3, 4, 8, 16, 33), missing), "one K reaches less than several"


def unsupported(capabilities: Capabilities) -> set[str]:
    """Return the clauses that do not apply to the reference under these claims."""
    adapter = load_adapter("reference")
    adapter.capabilities = lambda: capabilities
    without = ("invariance.batch-split", "repetition.every-time")  # the dearest
    clauses = tuple(each for name, each in CLAUSES.items() if name not in without)
    plan = Plan(clauses=clauses, max_examples=1, series=SERIES)
    results = [check_clause(adapter, clause, plan) for clause in plan.clauses]
    return {each.id for each in results if each.status == "unsupported"}


@pytest.fixture(scope="module")
def unsupported_of_all() -> set[str]:
    return unsupported(Capabilities())


@pytest.mark.parametrize("top_k", nightly([range(3, 100)], [(6,), (8,), range(3, 100)]))
def test_a_claim_of_few_top_k_loses_no_clause(top_k, unsupported_of_all):
    lost = unsupported(Capabilities(claims=(Claim(top_k=top_k),)))
    assert lost - unsupported_of_all == OF_ONE


def test_a_scene_of_a_claimed_top_k_is_left_as_it_is():
    (scene,) = scenes(Claim())
    assert scene.top_k == 2
    assert np.array_equal(scene.logits, ROWS)


def test_experts_are_added_above_the_row_or_below_all():
    winners, losers = scenes(Claim(top_k=(6,)))
    assert (winners.logits[:, 4:].min(axis=1) > ROWS.max(axis=1)).all()
    assert (losers.logits[:, 4:] < ROWS.min()).all()
    for scene in (winners, losers):
        assert np.array_equal(scene.logits, BFLOAT16.round(scene.logits))
        assert scene.top_k == 6
        assert scene.logits.shape == (2, 8)
        assert np.array_equal(scene.logits[:, :4], ROWS)


@pytest.mark.parametrize("logits", [[1000.0, 1016.0, -1000.0], [-(2.0**100), 3.0, 2.0**100]])
def test_experts_are_added_in_what_every_dtype_holds(logits):
    winners, losers = scenes(Claim(top_k=(4,)), logits=np.float32([logits]))
    for scene in (winners, losers):
        assert np.array_equal(scene.logits, BFLOAT16.round(scene.logits))
    assert winners.logits[0, 3:].min() > max(logits)
    assert losers.logits[0, 3:].max() < min(logits)


def test_a_row_of_nan_stays_one():
    logits = np.float32([[np.nan] * 4, [1.0, 2.0, 3.0, 4.0]])
    for scene in scenes(Claim(top_k=(6,)), logits=logits):
        assert np.isnan(scene.logits).tolist() == [[True] * 8, [False] * 8]


def test_enough_experts_are_tried_first_as_they_are():
    same, *_ = scenes(Claim(top_k=(3, 4)))
    assert same.top_k == 3
    assert np.array_equal(same.logits, ROWS)


def test_losers_come_after_those_of_each_group_and_arrays_grow_alike():
    bias, delta = np.float32([0.5, -0.5, 1.0, 0.0]), np.arange(16.0).reshape(4, 4)
    arrays = {"selection_bias": bias, "gate_delta": delta, "per_expert_scale": bias}
    (scene,) = scenes(Claim(top_k=(5,)), groups=(2, 1), arrays=arrays)
    homes = [0, 1, 5, 6]
    new = [2, 3, 4, 7, 8, 9]
    assert np.array_equal(scene.logits[:, homes], ROWS)
    assert np.array_equal(scene.arrays["selection_bias"][homes], bias)
    assert (scene.arrays["selection_bias"][new] == -0.5).all()
    assert (scene.arrays["per_expert_scale"][new] == 1.0).all()
    assert np.array_equal(scene.arrays["gate_delta"][np.ix_(homes, homes)], delta)
    assert scene.arrays["gate_delta"].sum() == delta.sum()


def test_a_table_of_experts_gets_ids_that_a_row_does_not_have():
    arrays = {"expert_table": [[3, 0]], "token_ids": [0, 0]}
    same, *more = scenes(Claim(top_k=(4,)), arrays=arrays)
    assert sorted(same.arrays["expert_table"][0]) == [0, 1, 2, 3]
    for scene in more:
        assert len(set(scene.arrays["expert_table"][0])) == 4
        assert list(scene.arrays["token_ids"]) == [0, 0]


def test_limits_cut_tokens_and_experts_off_and_round_experts_up():
    (few,) = scenes(Claim(), Limits(max_tokens=1, max_experts=3), arrays={"token_ids": [7, 8]})
    assert np.array_equal(few.logits, ROWS[:1, :3])
    assert few.arrays["token_ids"] == [7]
    (stepped,) = scenes(Claim(), Limits(experts_multiple_of=8))
    assert stepped.logits.shape == (2, 8)


def test_groups_are_made_of_one_size_before_a_step_is_heeded():
    logits = np.zeros((1, 9), np.float32)
    (scene,) = scenes(Claim(), Limits(experts_multiple_of=3), logits=logits, groups=(4, 1))
    assert scene.logits.shape == (1, 12)
    assert (scene.logits[0].reshape(4, 3) == [0.0, 0.0, -1.0]).all()


@pytest.mark.parametrize(
    "limits",
    [
        Limits(experts_multiple_of=5),
        Limits(experts_multiple_of=6, max_experts=20),
        Limits(max_tokens=3, max_experts=4),
        Limits(max_tokens=1, max_top_k=1),
    ],
)
def test_an_event_is_shown_within_limits_or_not_at_all(limits):
    capabilities = Capabilities(limits=limits)
    shown = {slug: event.constructed(capabilities) for slug, event in EVENTS.items()}
    for slug, case in shown.items():
        if isinstance(case, Case) and slug != "outside-claims":
            assert capabilities.admits(case.config, case.inputs), slug
    assert shown["any-case"]
    assert shown["one-selected"]


@pytest.mark.parametrize(
    ("permitted", "taken"),
    [((9, 4, 3), 3), (range(1, 9, 4), 5), (range(2, 10**12), 2), ((1,), None), (range(1, 2), None)],
)
def test_the_next_greater_top_k_is_taken(permitted, taken):
    assert {scene.top_k for scene in scenes(Claim(top_k=permitted))} == ({taken} - {None})


@pytest.mark.parametrize(
    ("wanted", "limits", "fits"),
    [(5, Limits(), 5), (5, Limits(experts_multiple_of=4), 8), (9, Limits(max_experts=6), 6)],
)
def test_the_number_of_experts_that_fits_is_the_nearest(wanted, limits, fits):
    assert fitting_experts(Capabilities(limits=limits), wanted) == fits

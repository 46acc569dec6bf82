"""Norms that may be 0, floors, and the limits of the weights' dtypes."""

from __future__ import annotations

import numpy as np
import pytest
from weighing import (
    assert_right,
    assert_wrong,
    divided,
    given,
    random_logits,
    router,
    summed,
    weighed,
)

from moe_routing.reference import Renormalize, stages
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS

U = FLOAT32.unit_roundoff
RULES = (
    Renormalize(),
    Renormalize(eps=1e-20),
    Renormalize(eps=1e-6),
    Renormalize(floor=1e-12),
    Renormalize(order=2.0),
    Renormalize(order=0.5),
)


@pytest.mark.parametrize("rule", [Renormalize(), Renormalize(order=2.0)], ids=str)
def test_where_the_norm_may_be_zero_any_share_or_nan_is_right_and_nothing_is_learnt(
    rule: Renormalize,
) -> None:
    inputs = given([[-120.0, -125.0, -130.0], [0.0, 1.0, 2.0]])
    config = router(3, 2, renormalize=rule, scale=2.5)
    usual = stages(config, inputs).weights[1]
    ids = stages(config, inputs).expert_ids
    for shares in ([np.nan, np.nan], [0.0, 0.0], [2.5, 0.0], [1.25, 1.25]):
        verdict = weighed(config, inputs, [shares, usual], ids)
        assert_right(verdict, f"{shares} under total underflow")
        assert verdict.decided.tolist() == [False, True], "only the second token is decided"
    shares = [[-0.1, 0.0], [2.6, 0.0]] if rule.order == 1.0 else [[-0.1, 0.0], [0.0, -np.inf]]
    for wrong in shares:
        verdict = weighed(config, inputs, [wrong, usual], ids)
        assert_wrong(verdict, f"{wrong} under total underflow", 0.5)
    verdict = weighed(config, inputs, [usual, [np.nan, np.nan]], ids)
    assert not verdict.weights[1].any(), "NaN is accepted where the norm cannot be 0"


def test_powers_may_underflow_where_the_weights_do_not() -> None:
    config = router(4, 2, renormalize=Renormalize(order=2.0), scale=-1.0)
    own = np.array([1.0, 0.0, 1.0, 1.0], np.float32)
    inputs = given([[-57.0, -57.5, -70.0, -70.0]], per_expert_scale=own)
    verdict = weighed(config, inputs, [[-np.inf, 0.0]], [[0, 1]])
    assert_right(verdict, "1e-25 over a norm that is 0 in float32")
    assert not verdict.decided.any(), "a norm that may be 0 decides nothing"
    # 2e-38 is normal and 8e-39 may be flushed: the second power is missing in the norm
    partly = given([[-43.4, -43.87, -70.0, -70.0]])
    config = router(4, 2, renormalize=Renormalize(order=2.0))
    gathered = FLOAT32.round(stages(config, partly).gathered)
    flushed = np.where(gathered**2 < FLOAT32.tiny, 0.0, gathered**2)
    assert (flushed > 0).tolist() == [[True, False]], "this test needs one power to be flushed"
    weights = gathered / np.sqrt(flushed.sum())
    assert_right(weighed(config, partly, weights, [[0, 1]]), "one power of two flushed")


def test_eight_may_be_added_up_in_bfloat16_and_hundreds_may_not() -> None:
    """Ones and less than half an ulp of it: a running sum never grows beyond its first number."""
    form = INPUT_FORMATS["bfloat16"]
    for top_k, right in ((8, True), (1024, False)):
        inputs = given([[20.0] + [-5.5625] * (top_k - 1)], dtype="bfloat16")
        axes = {"scores_dtype": "input", "renormalize": Renormalize()}
        config = router(top_k, top_k, **axes)
        gathered = form.round(stages(config, inputs).gathered)
        weights = form.round(gathered / summed(gathered, form, "forward"))
        verdict = weighed(config, inputs, weights, np.arange(top_k)[None])
        off = abs(weights[0, 0] / stages(config, inputs).weights[0, 0] - 1) / form.unit_roundoff
        assert off > 4, f"the sum drifts by {off:.3g} u only: this test saw nothing"
        assert bool(verdict.weights.all()) == right, f"{top_k} additions, {off:.3g} u off"


def test_negative_scales_mirror_what_an_undecided_norm_permits() -> None:
    own = np.array([1.0, -2.0, 1.0], np.float32)
    inputs = given([[-120.0, -125.0, -130.0]], per_expert_scale=own)
    config = router(3, 2, renormalize=Renormalize(), scale=-1.0)
    for shares, right in (([-1.0, 2.0], True), ([1.0, 2.0], False), ([-1.0, -2.0], False)):
        verdict = weighed(config, inputs, [shares], [[0, 1]])
        assert verdict.weights.all() == right, f"{shares} with scales -1 and 2"


def test_an_epsilon_that_vanishes_next_to_the_norm_may_be_dropped() -> None:
    inputs = given(random_logits(30, 6))
    for eps in (1e-20, 1e-9):
        config = router(6, 2, renormalize=Renormalize(eps=eps))
        done = stages(config, inputs)
        dropped = divided(done.gathered, Renormalize(), 1.0, FLOAT32, "forward/quotient")
        assert_right(weighed(config, inputs, dropped, done.expert_ids), f"no eps for {eps}")


@pytest.mark.parametrize("rule", [Renormalize(eps=1e-20), Renormalize(floor=1e-12)], ids=str)
def test_a_guard_that_float16_rounds_to_zero_guards_nothing(rule: Renormalize) -> None:
    config = router(3, 2, renormalize=rule, scores_dtype="input", logits_dtype="input")
    inputs = given([[-30.0, -32.0, -40.0]], dtype="float16")
    gathered = INPUT_FORMATS["float16"].round(stages(config, inputs).gathered)
    with np.errstate(all="ignore"):
        weights = divided(gathered, rule, 1.0, INPUT_FORMATS["float16"], "forward/quotient")
    assert np.isnan(weights).all(), "the guard holds in float16: this test saw nothing"
    assert_right(weighed(config, inputs, weights, [[0, 1]]), f"0 / 0 in float16 with {rule}")


def test_a_floor_above_the_norm_replaces_it() -> None:
    config = router(3, 2, renormalize=Renormalize(floor=0.5))
    inputs = given([[-3.0, -4.0, -5.0], [1.0, 2.0, 0.0]])
    done = stages(config, inputs)
    assert_right(weighed(config, inputs, done.weights, done.expert_ids), "the reference")
    unfloored = divided(done.gathered, Renormalize(), 1.0, FLOAT32, "forward/quotient")
    verdict = weighed(config, inputs, unfloored, done.expert_ids)
    assert not verdict.weights[0].any(), "the floor was left out where it holds"
    assert verdict.weights[1].all(), "a floor below the norm changes nothing"


def test_a_single_renormalised_weight_is_the_scale_up_to_one_division() -> None:
    config = router(4, 1, renormalize=Renormalize(), scale=2.5)
    inputs = given(random_logits(50, 4))
    ids = stages(config, inputs).expert_ids
    assert_right(weighed(config, inputs, np.full((50, 1), 2.5), ids), "the scale itself")
    for off in (1 + 16 * U, 1 - 16 * U):
        verdict = weighed(config, inputs, np.full((50, 1), 2.5 * off), ids)
        assert_wrong(verdict, f"{off!r} of the scale", 1.0)


def test_weights_that_overflow_their_dtype_may_be_infinite() -> None:
    config = router(2, 1, renormalize=Renormalize(), scale=1e5, weights_dtype="input")
    inputs = given([[1.0, 0.0]], dtype="float16")
    assert_right(weighed(config, inputs, [[np.inf]], [[0]]), "1e5 in float16")
    assert_right(weighed(config, inputs, [[1e5]], [[0]]), "1e5 in float32")
    assert_wrong(weighed(config, inputs, [[-np.inf]], [[0]]), "the other infinity")
    assert_wrong(weighed(config, inputs, [[np.nan]], [[0]]), "NaN for an overflow")

"""Weight bounds: every honest way to renormalise and scale is inside, every wrong weight outside.

Weights are judged at the answer's own ids, so these tests choose experts with the reference
and compute their weights in float32, bfloat16 or float16, one rounding a step.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from weighing import (
    PLAIN,
    WAYS,
    Array,
    assert_right,
    assert_wrong,
    divided,
    given,
    random_logits,
    router,
    summed,
    weighed,
)

from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.conformance.judge.logits import format_of
from moe_routing.reference import Groups, Renormalize, stages
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS
from moe_routing.reference.scores import SCORE_FUNCTIONS

U = FLOAT32.unit_roundoff
RULES = (
    Renormalize(),
    Renormalize(eps=1e-20),
    Renormalize(eps=1e-6),
    Renormalize(floor=1e-12),
    Renormalize(order=2.0),
    Renormalize(order=0.5),
)


# --- honest variants ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus"])
@pytest.mark.parametrize("top_k", [1, 2, 8])
def test_every_honest_renormalisation_is_right(dtype: str, score: str, top_k: int) -> None:
    inputs = given(random_logits(24, 16), dtype=dtype)
    form = INPUT_FORMATS[dtype]
    for rule, scale in itertools.product(RULES, (1.0, 2.5, -1.0, 0.0)):
        axes = {"renormalize": rule, "scale": scale, "logits_dtype": "input"}
        config = router(16, top_k, score, scores_dtype="input", weights_dtype="input", **axes)
        done = stages(config, inputs)
        scores = form.round(SCORE_FUNCTIONS[score](done.operated))
        bounds = Bounds(config, inputs, PLAIN)
        gathered = np.take_along_axis(scores, done.expert_ids, axis=1)
        for way in WAYS:
            weights = divided(gathered, rule, scale, form, way)
            verdict = judge(bounds, Answer(weights=weights, expert_ids=done.expert_ids))
            assert_right(verdict, f"{way} in {dtype} with {rule}, scale={scale}")


def off_by(values: Array, ulps: int) -> Array:
    """Float32 values, each ``ulps`` float32 numbers further from 0."""
    return (values.astype(np.float32).view(np.int32) + ulps).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("ulps", [-1, 1])
@pytest.mark.parametrize("top_k", [1, 2, 8])
def test_a_reciprocal_that_is_one_ulp_off_is_right(ulps: int, top_k: int) -> None:
    config, inputs = router(16, top_k, renormalize=Renormalize()), given(random_logits(200, 16))
    done = stages(config, inputs)
    gathered = FLOAT32.round(done.gathered)
    reciprocal = off_by(1.0 / summed(gathered, FLOAT32, "forward"), ulps)
    weights = FLOAT32.round(gathered * reciprocal)
    assert_right(weighed(config, inputs, weights, done.expert_ids), f"a reciprocal {ulps} ulp off")
    if top_k == 1 and ulps < 0:
        beyond = np.abs(weights - 1).max() / U
        assert beyond > 2, f"the weights err by {beyond:.3g} u only: this test saw nothing"


@pytest.mark.parametrize("ulps", [-4, 4])
@pytest.mark.parametrize("order", [0.5, 2.0, 3.0])
def test_powers_that_are_four_ulps_off_are_right(ulps: int, order: float) -> None:
    rule = Renormalize(order=order)
    config, inputs = router(16, 1, renormalize=rule), given(random_logits(200, 16))
    done = stages(config, inputs)
    gathered = FLOAT32.round(done.gathered)
    norm = summed(off_by(gathered**order, ulps), FLOAT32, "forward")
    norm = off_by(norm ** (1.0 / order), ulps)
    weights = FLOAT32.round(gathered / norm)
    assert_right(weighed(config, inputs, weights, done.expert_ids), f"powers {ulps} ulps off")


@pytest.mark.parametrize("scale", [1.0, 2.5, -2.0, 0.0])
def test_a_scale_of_any_sign_for_each_expert_is_right_when_applied_last(scale: float) -> None:
    own = np.array([1.0, -1.5, 0.0, 0.5, -2.0, 3.0], np.float32)
    inputs = given(random_logits(40, 6), per_expert_scale=own)
    config = router(6, 3, renormalize=Renormalize(), scale=scale)
    done = stages(config, inputs)
    each = own[done.expert_ids].astype(np.float64)
    weights = divided(done.gathered, config.renormalize, scale, FLOAT32, "forward/quotient")
    assert_right(
        weighed(config, inputs, FLOAT32.round(weights * each), done.expert_ids), "scaled at last"
    )
    if scale:
        assert_wrong(weighed(config, inputs, weights, done.expert_ids), "no per-expert scale")
        first = FLOAT32.round(done.gathered * each)
        with np.errstate(all="ignore"):
            first = divided(first, config.renormalize, scale, FLOAT32, "forward/quotient")
        assert_wrong(weighed(config, inputs, first, done.expert_ids), "scaled before the norm")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_of_the_selected_logits_are_right_in_the_precision_of_the_scores(
    dtype: str,
) -> None:
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)
    for source, score in itertools.product(
        ("softmax_of_selected", "sigmoid_of_selected"), ("identity", "softmax", "sigmoid")
    ):
        config = router(
            12, 4, score, weights_from=source, scores_dtype="input", weights_dtype="input"
        )
        inputs = given(random_logits(40, 12), dtype=dtype)
        done = stages(config, inputs)
        selected = torch.tensor(np.take_along_axis(done.operated, done.expert_ids, axis=1)).to(kind)
        softmax = source == "softmax_of_selected"
        got = torch.softmax(selected, dim=1) if softmax else torch.sigmoid(selected)
        verdict = weighed(config, inputs, got.double().numpy(), done.expert_ids)
        assert_right(verdict, f"{source} in {dtype} under {score}")
        if dtype == "float32":
            others = torch.softmax(torch.tensor(done.operated), dim=1).numpy()
            others = np.take_along_axis(others, done.expert_ids, axis=1)
            verdict = weighed(config, inputs, others, done.expert_ids)
            assert_wrong(verdict, f"softmax over all for {source}")


def test_masked_scores_are_zero_outside_the_kept_groups_and_free_at_a_tie_of_groups() -> None:
    # group 0 is kept; under a 0.0 fill and negative biased scores, an excluded expert wins
    groups = Groups(count=2, kept=1, fill=0.0)
    config = router(4, 1, weights_from="masked_scores", groups=groups)
    bias = np.array([-2.0, -2.0, -3.0, -3.0], np.float32)
    inputs = given([[1.0, 1.0, 1.0, 1.0]], selection_bias=bias)
    score = float(stages(config, inputs).scores[0, 0])
    assert_right(weighed(config, inputs, [[0.0]], [[2]]), "an excluded expert at weight 0")
    assert_wrong(weighed(config, inputs, [[score]], [[2]]), "an excluded expert at its score")
    tied = given([[1.0, 1.0, 1.0, 1.0]], selection_bias=np.full(4, -2.0, np.float32))
    for weight in (0.0, score):
        assert_right(weighed(config, tied, [[weight]], [[2]]), f"weight {weight} at a tie")
    assert_wrong(weighed(config, tied, [[2 * score]], [[2]]), "twice the score at a tie")
    unmasked = router(4, 1, groups=groups)
    assert_wrong(weighed(unmasked, inputs, [[0.0]], [[2]]), "weight 0 where nothing is masked")


# --- wrong weights --------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus"])
@pytest.mark.parametrize("rule", [None, *RULES], ids=str)
def test_wrong_weights_are_refused(score: str, rule: Renormalize | None) -> None:
    bias = np.array([0.5, -0.25, 0.25, 0.75, -0.5, 0.125, 0.0, 0.375], np.float32)
    config = router(8, 3, score, renormalize=rule, scale=2.5)
    inputs = given(random_logits(60, 8), selection_bias=bias)
    done = stages(config, inputs)
    ids, right = done.expert_ids, done.weights
    biased = np.take_along_axis(done.biased, ids, axis=1)
    how = "forward/quotient"
    wrong = {
        "the scale left out": right / 2.5,
        "the scale applied twice": right * 2.5,
        "slots in another order than ids": right[:, [1, 2, 0]],
        "one slot zero": right * [1.0, 1.0, 0.0],
    }
    if rule is None:
        wrong["biased scores"] = biased * 2.5
        wrong["renormalised"] = divided(done.gathered, Renormalize(), 2.5, FLOAT32, how)
    else:
        wrong["biased scores"] = divided(np.abs(biased), rule, 2.5, FLOAT32, how)
        wrong["not renormalised"] = done.gathered * 2.5
        other = Renormalize(order=2.0 if rule.order == 1.0 else 1.0)
        wrong["another order"] = divided(done.gathered, other, 2.5, FLOAT32, how)
    assert_right(weighed(config, inputs, right, ids), "the reference's weights")
    for what, weights in wrong.items():
        assert_wrong(weighed(config, inputs, weights, ids), what)


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus"])
@pytest.mark.parametrize("rule", [None, *RULES[:5]], ids=str)
def test_a_weight_four_ulps_beyond_the_bound_is_refused_and_the_bound_is_narrow(
    score: str, rule: Renormalize | None
) -> None:
    config = router(8, 3, score, renormalize=rule, scale=2.5)
    inputs = given(random_logits(60, 8))
    done = stages(config, inputs)
    verdict = weighed(config, inputs, done.weights, done.expert_ids)
    permitted = verdict.weight_bounds.permitted
    for end, sign in ((permitted.lo, -1), (permitted.hi, 1)):
        assert_right(weighed(config, inputs, end, done.expert_ids), "an endpoint itself")
        beyond = weighed(config, inputs, end * (1 + sign * 8 * U), done.expert_ids)
        assert not beyond.weights.any(), "a weight four ulps beyond its bound is accepted"
    # logits are below 10: the exponents of numerator and norm, then score, norm and scale
    width = ((permitted.hi - permitted.lo) / done.weights).max() / U
    eps = 0.0 if rule is None else rule.eps / done.gathered.min() / U
    assert width < 2 * (2 * 4 * 20 + 60) + eps, f"weights may err by {width:.3g} u"


def test_the_cast_to_the_weights_dtype_is_permitted_once_and_no_coarser() -> None:
    inputs = given(random_logits(60, 8), dtype="bfloat16")
    for weights_dtype in ("input", "float32"):
        axes = {"renormalize": Renormalize(), "weights_dtype": weights_dtype}
        config = router(8, 3, logits_dtype="float32", **axes)
        done = stages(config, inputs)
        form = format_of(weights_dtype, inputs)
        weights = form.round(done.weights)
        assert_right(weighed(config, inputs, weights, done.expert_ids), f"cast to {weights_dtype}")
    # the last config permits float32 only
    weights = INPUT_FORMATS["bfloat16"].round(done.weights)
    assert_wrong(weighed(config, inputs, weights, done.expert_ids), "bfloat16 for float32 weights")
    config = router(8, 3, renormalize=Renormalize(), weights_dtype="input")
    coarser = replace(INPUT_FORMATS["bfloat16"], precision=6)
    weights = coarser.round(done.weights)
    assert_wrong(weighed(config, inputs, weights, done.expert_ids), "two bits below", 0.7)


# --- norms that may be zero -----------------------------------------------------------------


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


def test_long_sums_in_bfloat16_may_drift_by_one_rounding_an_addition() -> None:
    top_k = 1024
    form = INPUT_FORMATS["bfloat16"]
    inputs = given(np.full((1, top_k), -0.625), dtype="bfloat16")
    axes = {"scores_dtype": "input", "renormalize": Renormalize()}
    config = router(top_k, top_k, **axes)
    gathered = form.round(stages(config, inputs).gathered)
    weights = form.round(gathered / summed(gathered, form, "forward"))
    verdict = weighed(config, inputs, weights, np.arange(top_k)[None])
    assert_right(verdict, f"{top_k} bfloat16 additions")
    off = np.abs(weights * top_k - 1).max() / form.unit_roundoff
    assert off > 1, f"the sum drifts by {off:.3g} u only: this test saw nothing"


def test_negative_scales_mirror_what_an_undecided_norm_permits() -> None:
    own = np.array([1.0, -2.0, 1.0], np.float32)
    inputs = given([[-120.0, -125.0, -130.0]], per_expert_scale=own)
    config = router(3, 2, renormalize=Renormalize(), scale=-1.0)
    for shares, right in (([-1.0, 2.0], True), ([1.0, 2.0], False), ([-1.0, -2.0], False)):
        verdict = weighed(config, inputs, [shares], [[0, 1]])
        assert verdict.weights.all() == right, f"{shares} with scales -1 and 2"


def test_an_epsilon_that_vanishes_beside_the_norm_may_be_dropped() -> None:
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

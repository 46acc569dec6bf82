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

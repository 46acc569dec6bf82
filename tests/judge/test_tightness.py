"""How wide each bound is, as a number derived here by hand, and what honest code needs.

A case is one token of known logits. Its most selected weight may err by the stated number of
units of roundoff, to first order: an error of 0.95 of that is right, one of 1.1 times it is
wrong, and so is one four times as large, in either direction. So no hole hides in a bound that
is wider than its derivation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gates import made
from weighing import PLAIN, given, router

from moe_routing.conformance.judge import Answer, Bounds, Interval, Verdict, judge
from moe_routing.conformance.judge.scores import operated_bounds
from moe_routing.conformance.judge.weights import sum_bounds
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, stages
from moe_routing.reference.formats import FLOAT32, FORMATS, INPUT_FORMATS

U = FLOAT32.unit_roundoff
E2 = np.exp(-2.0) / (1 + np.exp(-2.0))  # the lesser share of the logits 2 and 0
SIGMOID = {"score": "sigmoid", "logits": [2.0, 0.0]}
SOFTMAX = {"score": "softmax", "logits": [2.0, 0.0]}
NATIVE = dict.fromkeys(("logits_dtype", "scores_dtype", "weights_dtype"), "input")
LOG = np.log(1 + np.exp(-2.0))
EX2 = 2.0**1.1  # units of an exponential in 16 bits

# units of each case: what stands before the sum with CAST is of the scores' dtype
CAST = 1
CASES: dict[str, tuple[dict[str, Any], float]] = {
    # exponent 4 |z|, of which a sigmoid feels the share 1 - s; exp 5, sum 1, quotient 4
    "sigmoid": ({**SIGMOID, "top_k": 1}, 8 * E2 + 10 + CAST),
    # the quotient by itself: 1 addition counted for eps, division 4; the score cancels
    "sigmoid over itself": ({**SIGMOID, "top_k": 1, "rule": Renormalize()}, 1 + 4 + CAST),
    # both scores err apart, and a share p feels each by 1 - p
    "two sigmoids renormalised": (
        {**SIGMOID, "top_k": 2, "rule": Renormalize()},
        (8 * E2 + 10 + 10) * (0.5 / (0.5 + 1 - E2)) + 2 + 4 + CAST,
    ),
    # the root halves 4 |z| s / softplus and exp 5, log1p 5, sum 1, store 1; root 5, store 1
    "sqrtsoftplus": (
        {"score": "sqrtsoftplus", "logits": [2.0, 0.0], "top_k": 1},
        (8 * (1 - E2) / (2 + LOG) + 12) / 2 + 6 + CAST,
    ),
    # numerators: exponents 4 (|z| + |m|), exp 5, store 1, felt by 1 - p twice; additions 2 and
    # quotient 4; the norm's logarithm 2 (2 + log 2) + 5 log 2, and |z|
    "softmax": (
        {**SOFTMAX, "top_k": 1},
        E2 * (16 + 6 + 8 + 6) + 2 + 4 + (4 + 7 * np.log(2) + 2) + CAST,
    ),
    # here the quotient is part of what is renormalised, and the norm's logarithm cancels
    "softmax renormalised": (
        {**SOFTMAX, "top_k": 2, "rule": Renormalize()},
        E2 * (16 + 10 + 8 + 10) + 2 + 4 + CAST,
    ),
    # a constant, a product
    "scaled": ({**SIGMOID, "top_k": 1, "scale": 2.5}, 8 * E2 + 10 + 2 + CAST),
    "scaled for each expert": (
        {**SIGMOID, "top_k": 1, "per_expert_scale": [2.0, 0.5]},
        8 * E2 + 10 + 1 + CAST,
    ),
    # the power 8 cancels, K p-th roots are K / p or K, the root 8, the quotient 4
    "order 2 over itself": (
        {**SIGMOID, "top_k": 1, "rule": Renormalize(order=2.0)},
        8 / 2 + 1 + 8 + 4 + CAST,
    ),
    # eps is half of the divisor: the score no longer cancels, and eps has a rounding
    "an eps as large as the norm": (
        {**SIGMOID, "top_k": 1, "rule": Renormalize(eps=1 - E2)},
        (8 * E2 + 10) / 2 + 1 / 2 + 1 + 4 + CAST,
    ),
    "a floor above the norm": (
        {**SIGMOID, "top_k": 1, "rule": Renormalize(floor=2.0)},
        8 * E2 + 10 + 1 + 1 + 4 + CAST,
    ),
    "a softmax of the selected": (
        {**SOFTMAX, "top_k": 2, "weights_from": "softmax_of_selected"},
        E2 * (16 + 6 + 8 + 6) + 2 + 4 + (4 + 7 * np.log(2) + 2) + CAST,
    ),
    # in 16 bits: exp 2.14, felt by 1 - s, sum 1, quotient 2; a weight of 16 bits is not cast again
    "sigmoid in bfloat16": ({**SIGMOID, "top_k": 1, "dtype": "bfloat16"}, EX2 * E2 + 1 + 2),
    # the roots of a stored sum (1), and of a stored logarithm (1) of a sum with exp 2.14
    "sqrtsoftplus in bfloat16": (
        {"score": "sqrtsoftplus", "logits": [2.0, 0.0], "top_k": 1, "dtype": "bfloat16"},
        (EX2 * (1 - E2) / (2 + LOG) + 2) / 2 + 1,
    ),
    # a stored y - m: none of 0, 2 units of half an ulp of 2; a stored y - log N in place of the
    # quotient: none of 0.13, 2 of 2.13; exp 2.14 and quotient 1, or the store in place of it; all
    # felt by 1 - p, of both; one addition of two, counted by its share, and quotient 2
    "softmax renormalised with an epsilon in bfloat16": (
        {**SOFTMAX, "top_k": 2, "rule": Renormalize(eps=1e-20), "dtype": "bfloat16"},
        E2 * ((EX2 + 1) + (2 + EX2 + 2)) + 1 + 2,
    ),
}


def case_of(case: dict[str, Any]) -> tuple[RouterConfig, RouterInputs]:
    case = dict(case)
    rule, dtype = case.pop("rule", None), case.pop("dtype", "float32")
    arrays = {"per_expert_scale": np.float32(case.pop("per_expert_scale", [1.0, 1.0]))}
    if arrays["per_expert_scale"][0] == 1.0:
        arrays = {}
    inputs = given([case.pop("logits")], dtype=dtype, **arrays)
    axes = NATIVE if dtype != "float32" else {}
    return router(2, case.pop("top_k"), renormalize=rule, **axes, **case), inputs


def off_by(config: RouterConfig, inputs: RouterInputs, relative: float) -> Verdict:
    """The verdict on exact weights of which the greatest is off by ``relative``."""
    done = stages(config, inputs)
    weights = done.weights.copy()
    weights[0, 0] *= 1.0 + relative
    answer = Answer(weights=weights, expert_ids=done.expert_ids, logits=done.logits)
    return judge(Bounds(config, inputs, PLAIN), answer, logits="routed")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_bound_is_as_wide_as_its_derivation(name: str, sign: float) -> None:
    case, units = CASES[name]
    config, inputs = case_of(case)
    u = INPUT_FORMATS[inputs.dtype].unit_roundoff
    assert off_by(config, inputs, 0.95 * sign * units * u).right, (
        f"0.95 of {units:.3g} u is refused"
    )
    for times in (1.1, 4.0):
        verdict = off_by(config, inputs, times * sign * units * u)
        assert not verdict.weights[0, 0], f"{times} times {units:.3g} u is accepted"


@pytest.mark.parametrize("top_k", [1, 2, 8])
def test_a_sum_is_bounded_by_its_own_roundings_and_not_by_its_scores(top_k: int) -> None:
    config, inputs = router(8, top_k, renormalize=Renormalize()), given([[0.0] * 8])
    bounds, ids = Bounds(config, inputs, PLAIN), np.arange(top_k)[None]
    assert bounds.score_format is bounds.weight_format is FLOAT32
    found = sum_bounds(bounds, bounds.from_reference, ids)
    units = top_k + 4 + 8 + 1 + 1  # additions, quotient, power, rounding, cast
    width = (found.permitted.hi - found.permitted.lo)[0] / U
    assert width == pytest.approx(2 * units, rel=0.01), f"a sum may err by {width / 2:.3g} u"


@pytest.mark.parametrize(
    ("axes", "units"),
    [
        ({"logit_multiplier": 0.3}, 2),
        # the tanh of 0.1: its argument's quotient counts in full; quotient 4, tanh 5, two products
        ({"logit_softcap": 30.0}, 11),
    ],
)
def test_a_logit_op_is_bounded_by_its_own_roundings(axes: dict[str, float], units: int) -> None:
    bound = operated_bounds(router(2, 1, **axes), Interval.point([[3.0, -3.0]]), FLOAT32)
    width = (bound.hi - bound.lo) / np.abs(bound.hi + bound.lo) * 2 / U
    assert width == pytest.approx(np.full((1, 2), 2.0 * units), rel=0.01), f"{width} u, {axes}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_logit_is_bounded_by_its_additions_and_its_store(dtype: str) -> None:
    rng, u = np.random.default_rng(0), FORMATS[dtype].unit_roundoff
    inputs = made(dtype, rng.normal(size=(3, 33)), rng.normal(size=(4, 33)))
    for kind, store in (("float32", U), ("input", u)):
        config = RouterConfig(num_experts=4, top_k=1, logits_dtype=kind)
        bound = Bounds(config, inputs, PLAIN).logits
        size = np.abs(inputs.hidden.astype(float)) @ np.abs(inputs.gate_weight.astype(float)).T
        derived = 33 * U * size + store * np.abs(bound.reference)
        radius = bound.permitted.hi - bound.reference
        assert radius == pytest.approx(derived, rel=0.01), f"{kind} logits of {dtype}"

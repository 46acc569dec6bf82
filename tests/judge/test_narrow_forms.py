"""Scores in 16 bits: no honest form is refused, and none needs much less than it is given.

The forms are the honest variants of the zoo, each of which stores every step. They answer rows
that are as unkind as could be found: two levels, so that all but one expert round alike, or so
that a running sum never leaves its first number; slopes; and logits far from 0.
"""

from __future__ import annotations

import numpy as np
import pytest
from weighing import PLAIN, Array, given, router

from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.conformance.zoo import HONEST
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, stages
from moe_routing.reference.formats import INPUT_FORMATS

FORMS = [name for name in HONEST if name.endswith("-16-bit")]
NATIVE = dict.fromkeys(("logits_dtype", "scores_dtype", "weights_dtype"), "input")
MOST = 2.0
"""How many times the worst error found a bound may be."""

FOUND = (
    ((2, 15.375), (6, 7.25)),
    ((2, 15.875), (6, 6.90625)),
    ((1, 8.0), (7, 2.453125)),
    ((1, 0.68359375), (7, -11.375)),
    ((1, -1.921875), (7, -7.5625)),
    ((4, 16.25), (4, 10.8125)),
    ((3, 6.46875), (5, 2.015625), (24, 0.69921875)),
)
"""Levels and how many experts are at each, the last as often as there is room: what a search that
keeps the rows with the largest share of their bounds ended at."""


def unkind_rows(experts: int, top_k: int) -> Array:
    rows = []
    for level in (0.0, 3.0, 6.0):
        for top in (1, 2, top_k // 8, top_k // 2):
            for depth in np.r_[np.arange(0.0, 14.0, 0.25), np.arange(0.0, 14.0, 0.23)]:
                row = np.full(experts, level - depth)
                row[:top] = level
                row[top_k:] -= 3.0
                rows.append(row)
        rows += [level - slope * np.arange(experts) / top_k for slope in np.arange(0.25, 5, 0.25)]
    rows += [found_row(levels, experts) for levels in FOUND]
    return np.array(rows)


def found_row(levels: tuple[tuple[int, float], ...], experts: int) -> Array:
    row = np.repeat([level for _, level in levels], [count for count, _ in levels])
    return np.concatenate([row, np.full(experts, row[-1])])[:experts]


def answered(name: str, config: RouterConfig, inputs: RouterInputs) -> Verdict:
    found = HONEST[name].adapter().route(config, inputs)
    answer = Answer(
        weights=found.weights.astype(np.float64),
        expert_ids=found.expert_ids.astype(np.int64),
        logits=found.logits.astype(np.float64),
    )
    return judge(Bounds(config, inputs, PLAIN), answer, logits="routed")


def error_and_bound(verdict: Verdict, exact: Array, unit: float) -> tuple[Array, Array]:
    """In units of roundoff, of weights that matter."""
    permitted, weights = verdict.weight_bounds.permitted, verdict.answer.weights
    with np.errstate(all="ignore"):
        error = np.abs(np.log(weights / exact))
        bound = np.maximum(np.log(permitted.hi / exact), np.log(exact / permitted.lo))
    matter = exact > 2.0**-9
    return np.where(matter, error, 0.0) / unit, np.where(matter, bound, np.inf) / unit


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus"])
@pytest.mark.parametrize("rule", [None, Renormalize(), Renormalize(eps=1e-6)], ids=str)
def test_honest_forms_are_right_and_nearly_as_far_off_as_they_may_be(
    dtype: str, score: str, rule: Renormalize | None
) -> None:
    for experts, top_k in ((8, 8), (32, 32)):
        inputs = given(unkind_rows(experts, top_k), dtype=dtype)
        config = router(experts, top_k, score, renormalize=rule, **NATIVE)
        exact, share = stages(config, inputs), 0.0
        for name in FORMS:
            verdict = answered(name, config, inputs)
            assert verdict.right, f"{name}: {score} in {dtype}, K={top_k}, {rule}"
            error, bound = error_and_bound(
                verdict, exact.weights, INPUT_FORMATS[dtype].unit_roundoff
            )
            same = (verdict.answer.expert_ids == exact.expert_ids).all(axis=1)[:, None]
            share = max(share, float(np.where(same, error / bound, 0.0).max()))
        if dtype == "float16":
            continue  # its subnormal scores err by an amount, and have no worst share
        assert share * MOST >= 1.0, f"K={top_k}: bounds are {1 / share:.3g} times what was found"

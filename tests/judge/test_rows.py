"""Weights of a row up to one factor: what exact arithmetic explains, and what it does not."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from weighing import PLAIN, Array, given, router

from moe_routing.conformance.explain.failure import first_failure
from moe_routing.conformance.judge import NONE, Answer, Bounds, Interval, Verdict, judge
from moe_routing.conformance.judge.batch import judge_all
from moe_routing.conformance.judge.rows import RowBounds
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, stages

NATIVE = dict.fromkeys(("logits_dtype", "scores_dtype", "weights_dtype"), "input")
EIGHTHS = [each / 8 for each in range(-2, 13)]


def explained(weights: list[float], lo: list[float], hi: list[float], below: float) -> bool:
    """Whether some factor explains all weights, in exact fractions: one at an end of a slot."""
    slots = [tuple(map(Fraction, slot)) for slot in zip(weights, lo, hi, strict=True)]
    error = Fraction(below)
    ends = {Fraction(0)}
    for w, a, b in slots:
        ends |= {end / bound for end in (w - error, w + error) for bound in (a, b) if bound}
    large = 2 * max(ends) + 1  # beyond every end, where a slot that may be 0 puts no upper limit
    return any(
        all(factor * a - error <= w <= factor * b + error for w, a, b in slots)
        for factor in {*ends, large}
        if factor >= 0
    )


@pytest.mark.parametrize("below", [0.0, 0.125])
def test_a_row_is_right_exactly_where_one_factor_explains_it(below: float) -> None:
    rng, found = np.random.default_rng(0), [0, 0]
    ends = np.sort(rng.choice(EIGHTHS[3:], (400, 3, 2)), axis=2)
    ends[::5, 0, 0] = 0.0
    values = np.abs(rng.choice(EIGHTHS, (400, 3)))
    row = RowBounds(
        own=Interval(ends[:, :, 0], ends[:, :, 1]),
        scale=np.ones((400, 3)),
        below=np.full((400, 3), below),
    )
    apart = row.apart(values, np.ones(400, dtype=bool))
    for t in range(400):
        right = explained(*(each.tolist() for each in (values[t], *ends[t].T)), below)
        assert (apart[t, 0] == NONE) == right, f"{values[t]} in {ends[t]}, {below} off"
        found[right] += 1
        if not right:  # the two slots alone show it
            pair = apart[t]
            assert not explained(
                *(each.tolist() for each in (values[t][pair], *ends[t][pair].T)), below
            )
    assert min(found) > 50, f"{found} wrong and right rows: this test saw too little"


def test_a_scale_of_either_sign_is_taken_off_and_one_of_zero_shows_nothing() -> None:
    row = RowBounds(
        own=Interval(np.full((1, 3), 0.9), np.full((1, 3), 1.1)),
        scale=np.array([[2.0, -4.0, 0.0]]),
        below=np.zeros((1, 3)),
    )
    judged = np.ones(1, dtype=bool)
    for weights, right in (([2, -4, 9], True), ([2, -5, 9], False), ([2, 4, 9], False)):
        apart = row.apart(np.array([weights], dtype=np.float64), judged)
        assert (apart[0, 0] == NONE) == right, weights
    assert row.ratio(0, 1, 0) == pytest.approx((-2 * 1.1 / 0.9, -2 * 0.9 / 1.1))


def test_rows_that_are_not_judged_and_numbers_that_are_not_finite_show_nothing() -> None:
    one = np.ones((2, 2))
    row = RowBounds(own=Interval(one, one), scale=one, below=0 * one)
    for weights, judged in (([1.0, 9.0], False), ([np.inf, 1.0], True), ([np.nan, 1.0], True)):
        apart = row.apart(np.array([weights, [1.0, 1.0]]), np.array([judged, True]))
        assert (apart == NONE).all(), weights


def call(rule: Renormalize | None, top_k: int, **axes: object) -> tuple[RouterConfig, RouterInputs]:
    logits = [np.linspace(2.0, -1.0, 12), np.zeros(12)]
    config = router(12, top_k, "sigmoid", renormalize=rule, **{**NATIVE, **axes})
    return config, given(logits, dtype="bfloat16")


def of(config: RouterConfig, inputs: RouterInputs, factors: Array) -> tuple[Bounds, Answer]:
    done = stages(config, inputs)
    weights = done.weights * factors
    return Bounds(config, inputs, PLAIN), Answer(
        weights=weights, expert_ids=done.expert_ids, logits=done.logits
    )


def verdict_on(config: RouterConfig, inputs: RouterInputs, factors: Array) -> Verdict:
    return judge(*of(config, inputs, factors), logits="routed")


APART = np.array([1.035, 1.0, 1.0, 0.965, 1.0, 1.0, 1.0, 1.0])


def test_slots_that_are_right_alone_may_be_wrong_together() -> None:
    config, inputs = call(Renormalize(), 8)
    for factor in (1.035, 0.965):
        assert verdict_on(config, inputs, np.full(8, factor)).right, "a factor of the whole row"
    verdict = verdict_on(config, inputs, APART)
    assert verdict.apart.tolist() == [[0, 3], [0, 3]]
    assert verdict.weights.sum(axis=1).tolist() == [6, 6], "the two slots alone are marked"
    assert verdict.weight_bounds.permitted.contains(verdict.answer.weights).all()


def test_a_slot_outside_its_bounds_is_what_is_told() -> None:
    config, inputs = call(Renormalize(), 8)
    verdict = verdict_on(config, inputs, np.where(APART > 1, 1.5, 1.0))
    assert verdict.apart.tolist() == [[NONE, NONE]] * 2
    failure = first_failure(verdict, "weights")
    assert failure is not None
    assert failure.summary.startswith("weights[0, 0]=")


def test_float32_has_no_rows_to_judge() -> None:
    config, inputs = call(Renormalize(), 8, scores_dtype="float32")
    verdict = verdict_on(config, inputs, np.ones(8))
    assert verdict.weight_bounds.row is None
    assert (verdict.apart == NONE).all()


@pytest.mark.parametrize(
    ("rule", "axes"),
    itertools.product(
        (None, Renormalize(), Renormalize(order=2.0)), ({}, {"scale": -2.5}, {"scale": 0.0})
    ),
)
def test_a_row_that_is_judged_with_others_gets_the_verdict_that_it_gets_alone(
    rule: Renormalize | None, axes: dict[str, float]
) -> None:
    config, inputs = call(rule, 8, **axes)
    answers = [of(config, inputs, factors)[1] for factors in (np.ones(8), APART, APART[::-1])]
    bounds = Bounds(config, inputs, PLAIN)
    for one, answer in zip(judge_all(bounds, answers, logits="routed"), answers, strict=True):
        alone = judge(bounds, answer, logits="routed")
        assert (one.apart == alone.apart).all()
        assert (one.weights == alone.weights).all()


def test_the_words_name_the_ratio_and_both_experts() -> None:
    config, inputs = call(Renormalize(), 8)
    failure = first_failure(verdict_on(config, inputs, APART), "weights")
    assert failure is not None
    assert failure.token == 0
    assert failure.summary.startswith("weights[0, 0] / weights[0, 3]=")
    assert "but the ratio should be in [" in failure.summary
    assert failure.summary.endswith("(experts 0 and 3)")
    marked = [line for line in failure.details if "wrong only in its ratio" in line]
    assert len(marked) == 2, "\n".join(failure.details)

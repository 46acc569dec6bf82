"""Judging gradients: honest forms are right, wrong ones are not, open rows are told as such."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from honest_gradients import one
from torch_forms import FORMS, differentiated, judged, verdict_of

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events import EVENTS
from moe_routing.conformance.generators.choices import Focus, seeded
from moe_routing.conformance.generators.gradients import choose_gradient_case, with_cotangent
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.gradient_balls import weighted_rest
from moe_routing.conformance.judge.gradient_products import GateGradients
from moe_routing.conformance.judge.gradients import GradientVerdict
from moe_routing.implementations import Capabilities, Numerics
from moe_routing.reference import Renormalize, RmsNorm, RouterConfig, RouterInputs
from moe_routing.reference.formats import BFLOAT16, FLOAT16

ROWS = [[1.0, 0.25, -0.5, 2.0], [0.0, 1.5, 0.5, -1.0], [-1.0, 0.75, 2.5, 0.25]]
SUM = Renormalize()


def case_of(rows: Any = ROWS, top_k: int = 2, dtype: str = "float32", **config: Any) -> Any:
    table = np.asarray(rows, np.float32)
    made = RouterConfig(num_experts=table.shape[1], top_k=top_k, **config)
    return with_cotangent(Case(config=made, inputs=RouterInputs.from_logits(table, dtype=dtype)))


def changed(case: GradientCase, name: str, change: Any) -> Any:
    """Judge torch's gradients with one of them changed."""
    bounds = Bounds(case.config, case.inputs.router, Numerics())
    answer, given = differentiated(bounds, case, "eager")
    return judged(bounds, case, answer, {**given, name: change(given[name])}).of(name)


def wrong(verdict: GradientVerdict) -> list[str]:
    return [name for name in verdict.given if verdict.of(name).wrong.any()]


@pytest.mark.parametrize("form", FORMS)
def test_honest_forms_are_right(form: str) -> None:
    found, decided = [], 0
    with np.errstate(all="ignore"):
        for seed in range(40):
            case = choose_gradient_case(seeded(seed), Capabilities(), Focus(recipes=("normal",)))
            if case.inputs.cotangent.size < 5000:
                verdict = verdict_of(case, form)
                found += [(seed, name) for name in wrong(verdict)]
                decided += int(verdict.of("hidden").permitted.decided.sum())
    assert found == []
    assert decided > 5000


def test_a_softmax_of_selected_experts_that_are_all_lost_is_undecided() -> None:
    """A selection bias, a fill or a table may choose experts whose logits are all -inf."""
    table = np.array([[-np.inf, 1.0, -np.inf], [-np.inf, 0.5, -np.inf]], np.float32)
    inputs = RouterInputs.from_logits(
        table, expert_table=np.array([[0, 2], [1, 0]]), token_ids=np.arange(2)
    )
    config = RouterConfig(
        num_experts=3, top_k=2, score="identity", weights_from="softmax_of_selected"
    )
    case = with_cotangent(Case(config=config, inputs=inputs))
    verdict = verdict_of(case, "eager")
    assert wrong(verdict) == []
    assert verdict.of("logits").permitted.decided.all(axis=1).tolist() == [False, True]


@pytest.mark.parametrize("config", [{}, {"score": "sigmoid", "renormalize": SUM}], ids=str)
def test_a_gradient_that_is_a_ten_thousandth_off_is_wrong(config: dict[str, Any]) -> None:
    case = case_of(**config)
    assert not changed(case, "logits", lambda g: g).wrong.any()
    assert changed(case, "logits", lambda g: g * 1.0001).wrong.any()
    for name in ("hidden", "gate_weight"):
        assert changed(case, name, lambda g: g * 1.00001).wrong.any()


def test_nan_and_none_are_wrong_where_a_number_is_due() -> None:
    case = case_of()
    assert changed(case, "logits", lambda g: g * np.nan).wrong.all()
    verdict = verdict_of(case, "eager")
    none = replace(verdict, given={"logits": verdict.given["logits"]}).of("gate_weight")
    assert not none.given
    assert none.wrong.any()


def test_one_renormalised_expert_has_the_gradient_0() -> None:
    case = case_of(top_k=1, renormalize=SUM)
    assert not changed(case, "logits", lambda g: g * 0).wrong.any()
    assert changed(case, "logits", lambda g: g + 1e-4).wrong.any()


def test_a_norm_takes_the_roundings_of_many_experts_out_of_the_bound() -> None:
    rows = np.random.default_rng(1).standard_normal((2, 512)).astype(np.float32)
    verdict = verdict_of(case_of(rows, 8, renormalize=SUM), "eager")
    radii = np.take_along_axis(verdict.of("logits").permitted.rad, verdict.ids, axis=1)
    assert (radii / verdict.answer.weights).max() < 512 * 2.0**-24


def test_a_token_without_scores_is_not_judged_and_the_others_are() -> None:
    verdict = verdict_of(case_of([[np.nan] * 4, *ROWS]), "eager")
    decided = verdict.of("hidden").permitted.decided
    assert not decided[0].any()
    assert decided[1:].all()
    assert not verdict.of("hidden").wrong.any()
    assert not verdict.of("gate_weight").permitted.decided.any()


@pytest.mark.parametrize(
    ("rows", "config"),
    [
        ([[-110.0, -108.0, -107.0, -106.0]], {"score": "sqrtsoftplus"}),
        ([[-110.0, -108.0, -107.0, -106.0]], {"score": "sigmoid", "renormalize": SUM}),
    ],
    ids=["a root of what may be 0", "a norm that may be 0"],
)
def test_what_rounding_leaves_open_is_told_as_such(rows: Any, config: dict[str, Any]) -> None:
    assert not verdict_of(case_of(rows, **config), "eager").of("logits").decided


def test_a_sigmoid_far_below_0_is_judged_and_nan_is_wrong() -> None:
    case = case_of([[-95.0, 1.0, -100.0, 0.5]], score="sigmoid")
    assert changed(case, "logits", lambda g: np.where(g == 0, np.nan, g)).wrong.any()
    assert not changed(case, "logits", lambda g: g).wrong.any()


def test_a_gradient_beyond_float16_is_open() -> None:
    case = case_of(dtype="float16")
    large = replace(case.inputs, cotangent=case.inputs.cotangent * np.float32(2**14))
    gate = np.array(case.inputs.gate_weight) * np.float32(64)
    hidden = np.array(case.inputs.hidden) / np.float32(64)
    large = replace(large, gate_weight=gate, hidden=hidden, logits=None)
    verdict = verdict_of(replace(case, inputs=large), "eager")
    assert not verdict.of("hidden").permitted.decided.all()
    assert wrong(verdict) == []


class TestExactCases:
    """From its own gradient of the logits, a gate gradient of dyadic tokens is exact."""

    CASE = EVENTS["gradient-exact-sum"].constructed(Capabilities())

    def test_the_last_bit_counts(self) -> None:
        right = changed(self.CASE, "gate_weight", lambda g: g)
        assert not right.wrong.any()
        assert right.permitted.rad.max() < 1e-37
        assert changed(self.CASE, "gate_weight", lambda g: g * (1 + 2.0**-23)).wrong.any()

    def test_a_sum_in_bfloat16_is_wrong(self) -> None:
        assert changed(self.CASE, "gate_weight", BFLOAT16.round).wrong.any()


def test_experts_out_of_range_are_not_judged() -> None:
    verdict = verdict_of(case_of(), "eager")
    ids = verdict.answer.expert_ids.copy()
    ids[0, 0] = 9
    other = replace(verdict, answer=replace(verdict.answer, expert_ids=ids))
    assert not other.of("hidden").permitted.decided[0].any()
    assert other.of("hidden").permitted.decided[1:].all()


def test_a_weight_may_be_stored_in_one_product_and_not_in_the_other() -> None:
    """``log_softmax(z).exp()`` in 16 bits: the exponential is stored, and made anew on the way."""
    w, g, mean = np.array([[0.9e-7]]), 8.0, 7.9
    stored = FLOAT16.round(w)
    honest = FLOAT16.round(FLOAT16.round(stored * g) - w * mean)
    form = Ball(w, np.full_like(w, FLOAT16.tiny * FLOAT16.unit_roundoff))
    ball = weighted_rest(form, Ball.exact([[g]]), Ball.exact([[mean]]), FLOAT16)
    assert np.abs(honest - ball.mid)[0, 0] > FLOAT16.tiny * FLOAT16.unit_roundoff
    assert ball.contains(honest).all()


def test_a_small_cotangent_may_underflow_with_the_square_of_a_reciprocal() -> None:
    """``g s s exp(-z)``: the first three are 6e-40, and may count as 0."""
    case = case_of([[-43.0, -80.0]], top_k=1, score="sigmoid")
    small = replace(case, inputs=replace(case.inputs, cotangent=case.inputs.cotangent / 64))
    verdict = verdict_of(small, "eager")
    ball = verdict.of("logits").permitted
    assert ball.mid[0, 0] != 0.0
    assert ball.contains(np.zeros((1, 2))).all()
    assert not ball.contains(-ball.mid)[0, 0]


def test_the_square_of_a_reciprocal_may_be_rounded_up_below_the_normal_range() -> None:
    """``g (s s) exp(-z)``: s s is half of the least number, and g of that is: both double."""
    least = np.float32(2.0**-149)
    z = np.float32(np.log(0.51 * 2.0**-149) / 2.0)
    s, g = np.float32(1.0 / (1.0 + np.exp(-np.float64(z)))), np.float32(0.51)
    assert s * s == least
    assert g * (s * s) == least
    honest = g * (s * s) * np.exp(-z)
    case = case_of([[z, -80.0]], top_k=1, score="sigmoid")
    due = replace(case, inputs=replace(case.inputs, cotangent=np.array([[g, 0.0]], np.float32)))
    ball = verdict_of(due, "eager").of("logits").permitted
    assert abs(honest - ball.mid[0, 0]) > 2.0 * ball.mid[0, 0]
    assert ball.contains([[honest, 0.0]]).all()
    assert not ball.contains([[4.0 * honest, 0.0]]).all()


def test_the_root_of_the_width_may_be_multiplied_first_and_underflow() -> None:
    hidden = np.zeros((1, 64), np.float32)
    hidden[0, 0] = 64.0  # of a root mean square of 8
    gate = np.zeros((1, 64), np.float32)
    gate[0, 0] = 1.0
    scale = np.ones(64, np.float32)
    inputs = RouterInputs(hidden=hidden, gate_weight=gate, hidden_scale=scale, dtype="float16")
    config = RouterConfig(
        num_experts=1, top_k=1, input_norm=RmsNorm(eps=1e-12), logits_dtype="input"
    )
    at = np.array([[1.25 * 2.0**-20]])
    ball = GateGradients(config, inputs, Numerics(), Ball.exact(at)).of("hidden_scale")
    honest = FLOAT16.round(FLOAT16.round(at * 0.125) * 8.0)[0, 0]
    assert abs(honest - ball.mid[0]) > 3.0 * 2.0**-24
    assert ball.contains(np.where(np.arange(64) == 0, honest, 0.0)).all()
    assert not ball.contains(2.0 * ball.mid)[0]


def test_a_delta_may_have_been_added_to_the_gate_on_the_way_back() -> None:
    small = np.float32(2.0**-30)  # vanishes beside the gate, and not beside 0
    gate, delta = np.float32([[1.0], [1.0]]), np.float32([[small], [-small]])
    inputs = RouterInputs(hidden=np.ones((1, 1), np.float32), gate_weight=gate, gate_delta=delta)
    at = np.float32([[1.0, -1.0]])
    config = RouterConfig(num_experts=2, top_k=1)
    ball = GateGradients(config, inputs, Numerics(), Ball.exact(at)).of("hidden")
    merged, apart = at @ (gate + delta), at @ gate + at @ delta
    assert merged == 0.0
    assert apart == 2 * small
    assert ball.contains(merged).all(), "LOG-2 permits it"
    assert ball.contains(apart).all()
    assert not ball.contains(np.float32([[2.0**-20]])).any()


def test_the_campaign_of_honest_gradients_has_no_alarm_in_its_first_cases() -> None:
    for number in range(4):
        alarms, counts = one(number, 0, "cpu")
        assert alarms == []
        assert counts["cases"] + counts["large cases, left out"] == 1

"""What certainly lies within a radius lies within it: the parts are no greater than the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from certain_gradients import PLAIN, differences
from torch_forms import differentiated, judged, verdict_of

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.choices import Focus, seeded
from moe_routing.conformance.generators.gradients import choose_gradient_case, with_cotangent
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.ball_sums import Matrix, product
from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.certain_gradients import kept, points_of, stored_in
from moe_routing.conformance.judge.least import certainly_within, magnitudes
from moe_routing.conformance.judge.logit_gradients import logit_gradients
from moe_routing.implementations import Numerics
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs
from moe_routing.reference.formats import BFLOAT16, FLOAT32

FORMS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "renormalised softmax": {"renormalize": Renormalize()},
    "softmax of the selected": {"weights_from": "softmax_of_selected"},
    "sigmoid": {"score": "sigmoid"},
    "renormalised sigmoid": {"score": "sigmoid", "renormalize": Renormalize(eps=1e-20)},
}


def plain(tokens: int = 24, hidden: int = 48, experts: int = 16, **config: Any) -> GradientCase:
    rng = np.random.default_rng(0)
    inputs = RouterInputs(
        hidden=rng.standard_normal((tokens, hidden), np.float32),
        gate_weight=rng.standard_normal((experts, hidden), np.float32) / np.float32(hidden**0.5),
    )
    made = RouterConfig(num_experts=experts, top_k=4, **config)
    return with_cotangent(Case(config=made, inputs=inputs))


class TestProducts:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((9, 40), np.float32).astype(np.float64)
    rows = rng.standard_normal((7, 40), np.float32)

    def test_some_summands_are_no_more_than_all(self) -> None:
        rows, places = self.rows.astype(np.float64), np.nonzero(np.ones((9, 7)))
        whole = (np.abs(self.a) @ np.abs(self.rows.T.astype(np.float64))).reshape(-1)
        four = np.argsort(-np.abs(self.a), axis=1)[:, :4]
        assert (magnitudes(self.a, rows, places, four) <= whole).all()
        assert magnitudes(self.a, rows, places) == pytest.approx(whole)

    @pytest.mark.parametrize("form", [FLOAT32, BFLOAT16], ids=lambda form: form.name)
    def test_nothing_past_the_radius_is_certain(self, form: Any) -> None:
        ball, matrix = product(Ball.exact(self.a), self.rows.T, form), Matrix.of(self.rows)
        honest = form.round((self.a.astype(np.float32) @ self.rows.T).astype(np.float64))
        assert certainly_within(honest.astype(np.float64), self.a, matrix, form)
        for t, n in np.ndindex(ball.mid.shape):
            answered = ball.mid.copy()
            answered[t, n] += ball.rad[t, n] * 1.0001
            assert not certainly_within(answered, self.a, matrix, form)

    def test_a_sum_that_is_exact_has_no_neighbours(self) -> None:
        a, rows = np.rint(self.a * 2.0), np.rint(self.rows * 2.0)
        exact, matrix = a @ rows.T.astype(np.float64), Matrix.of(rows)
        assert certainly_within(exact, a, matrix, FLOAT32)
        exact[3, 2] = np.nextafter(np.float32(exact[3, 2]), np.float32(np.inf))
        assert not certainly_within(exact, a, matrix, FLOAT32)

    def test_sums_that_cancel_are_looked_at_as_a_whole(self) -> None:
        a, rows = self.a.copy(), self.rows.copy()
        a[:, 20:], rows[:, 20:] = a[:, :20], -rows[:, :20]
        some = (a.astype(np.float32) @ rows.T).astype(np.float64)
        assert (some != a @ rows.T.astype(np.float64)).any()
        assert certainly_within(some, a, Matrix.of(rows), FLOAT32)

    def test_nothing_is_certain_of_what_is_not_a_number(self) -> None:
        answered = self.a @ self.rows.T
        answered[0, 0] = np.nan
        assert not certainly_within(answered, self.a, Matrix.of(self.rows), FLOAT32)


class TestLogits:
    @pytest.mark.parametrize("form", FORMS)
    def test_plain_gradients_are_certain_of_all(self, form: str) -> None:
        verdict = verdict_of(plain(**FORMS[form]), "eager")
        found = {name: verdict.of(name).surely_right for name in verdict.given}
        assert found == {"logits": True, "hidden": True, "gate_weight": True}
        assert "at_logits" not in vars(verdict), "the radius was made all the same"

    @pytest.mark.parametrize("form", FORMS)
    def test_a_wrong_gradient_is_never_certain(self, form: str) -> None:
        case = plain(**FORMS[form])
        bounds = Bounds(case.config, case.inputs.router, Numerics())
        answer, given = differentiated(bounds, case, "eager")
        for name in given:
            changed = given[name].copy()
            changed.flat[np.abs(changed).argmax()] *= 1.001
            found = judged(bounds, case, answer, {**given, name: changed}).of(name)
            assert found.wrong.sum() == 1, name

    def test_the_parts_of_a_radius_are_no_more_than_the_whole(self) -> None:
        seen = 0
        for seed in range(100):
            case = choose_gradient_case(seeded(seed), PLAIN, Focus())
            seen += _is_within(case)
        assert seen > 12

    def test_two_slots_of_one_expert_are_not_certain(self) -> None:
        case = plain()
        bounds = Bounds(case.config, case.inputs.router, Numerics())
        answer, _ = differentiated(bounds, case, "eager")
        assert answer.logits is not None
        ids = answer.expert_ids.copy()
        ids[0, 1] = ids[0, 0]
        cotangent = case.inputs.cotangent.astype(np.float64)
        assert points_of(bounds, answer.logits, answer.expert_ids, cotangent) is not None
        assert points_of(bounds, answer.logits, ids, cotangent) is None


def _is_within(case: GradientCase) -> bool:
    """Hold a point and its part of a radius against the ball; whether there was one."""
    bounds = Bounds(case.config, case.inputs.router, Numerics())
    ids, cotangent = bounds.reference.expert_ids, case.inputs.cotangent.astype(np.float64)
    logits = bounds.reference.logits.astype(np.float32).astype(np.float64)
    points = points_of(bounds, logits, ids, cotangent)
    if points is None:
        return False
    later = bounds.from_logits(type(bounds.logits.permitted).point(logits))
    ball, form = logit_gradients(bounds, later, ids, cotangent).ball, stored_in(bounds)
    mid, rad = np.zeros(ball.mid.shape), np.zeros(ball.mid.shape)
    if points.rest is not None and points.rest_radius is not None:
        mid, rad = points.rest.copy(), kept(points.rest, points.rest_radius, form)
    np.put_along_axis(mid, ids, points.at, axis=1)
    np.put_along_axis(rad, ids, kept(points.at, points.at_radius, form), axis=1)
    past = np.abs(mid - ball.mid) + rad > ball.rad
    assert not past.any(), (case.config, np.argwhere(past)[0])
    assert ball.decided.all()
    return True


def test_drawn_answers_have_the_verdict_of_the_whole_radius() -> None:
    found = [line for number in range(4) for line in differences(number, 5)[0]]
    assert found == []

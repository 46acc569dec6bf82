"""What certainly lies within a radius lies within it: the parts are no greater than the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from certain_gradients import AXES, differences, in_mode
from torch_forms import differentiated, judged, verdict_of

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.choices import Focus, seeded
from moe_routing.conformance.generators.gradients import choose_gradient_case, with_cotangent
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.ball_sums import Matrix, product
from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.certain_gradients import kept, points_of
from moe_routing.conformance.judge.certain_rows import certainly_right, is_calm
from moe_routing.conformance.judge.least import certainly_within, magnitudes
from moe_routing.conformance.judge.least_starts import least_start
from moe_routing.conformance.judge.logit_gradients import logit_gradients, stored_in
from moe_routing.conformance.judge.logit_points import LogitPoints, reference_points
from moe_routing.conformance.judge.slot_gradients import slot_gradients
from moe_routing.implementations import Numerics
from moe_routing.reference import Groups, Renormalize, RmsNorm, RouterConfig, RouterInputs
from moe_routing.reference.formats import BFLOAT16, FLOAT32, INPUT_FORMATS

SUM = Renormalize()
MASKED: dict[str, Any] = {"weights_from": "masked_scores", "groups": Groups(count=4, kept=2)}
FORMS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "renormalised softmax": {"renormalize": SUM},
    "softmax of the selected": {"weights_from": "softmax_of_selected"},
    "sigmoid": {"score": "sigmoid"},
    "renormalised sigmoid": {"score": "sigmoid", "renormalize": Renormalize(eps=1e-20)},
    "softcap": {"renormalize": SUM, "logit_softcap": 5.0},
    "softcap without a norm": {"logit_softcap": 5.0},
    "multiplier": {"renormalize": SUM, "logit_multiplier": -0.5},
    "masked scores": MASKED,
    "renormalised masked scores": {**MASKED, "renormalize": SUM},
    "masked sigmoids": {**MASKED, "score": "sigmoid", "renormalize": SUM},
    "norm of order 2": {"renormalize": Renormalize(order=2.0)},
    "norm with eps": {"renormalize": Renormalize(eps=1e-6)},
    "floored norm": {"renormalize": Renormalize(floor=1e-6)},
    "norm under its floor": {"renormalize": Renormalize(floor=8.0)},
    "sqrtsoftplus": {"score": "sqrtsoftplus"},
    "renormalised sqrtsoftplus": {"score": "sqrtsoftplus", "renormalize": SUM},
    "bfloat16 scores": {"renormalize": SUM, "scores_dtype": "input", "dtype": "bfloat16"},
    "bfloat16 softmax": {"scores_dtype": "input", "dtype": "bfloat16"},
    "bfloat16 sigmoid": {"score": "sigmoid", "scores_dtype": "input", "dtype": "bfloat16"},
    "float16 sigmoid": {"score": "sigmoid", "scores_dtype": "input", "dtype": "float16"},
    "bfloat16 logits": {"renormalize": SUM, "logits_dtype": "input", "dtype": "bfloat16"},
    "input norm": {"renormalize": SUM, "input_norm": RmsNorm(), "arrays": ("hidden_scale",)},
    "bfloat16 input norm": {"score": "sigmoid", "input_norm": RmsNorm(), "dtype": "bfloat16"},
    "gate bias": {"renormalize": SUM, "arrays": ("gate_bias",)},
    "gate delta": {"renormalize": SUM, "arrays": ("gate_delta",)},
    "expert scale": {"renormalize": SUM, "arrays": ("per_expert_scale",)},
}
"""One call for each stage on the way, each of which the quick way decides."""

NARROW = {"bfloat16 scores", "bfloat16 softmax", "float16 sigmoid"}
"""Those that are walked where the logits are not known: a softmax in 16 bits, a short range."""

PRECISE = {*FORMS} - {"input norm", "gate delta"}
"""Those in which a gradient that is off by a thousandth is wrong without own logits, too."""


def plain(
    tokens: int = 24,
    hidden: int = 48,
    experts: int = 16,
    dtype: str = "float32",
    arrays: Sequence[str] = (),
    **config: Any,
) -> GradientCase:
    rng, form = np.random.default_rng(0), INPUT_FORMATS[dtype]
    gate = rng.standard_normal((experts, hidden)) / hidden**0.5
    shapes = {"hidden_scale": hidden, "gate_delta": gate.shape}
    shapes |= {"gate_bias": experts, "per_expert_scale": experts}
    inputs = RouterInputs(
        hidden=form.round(rng.standard_normal((tokens, hidden))).astype(np.float32),
        gate_weight=form.round(gate).astype(np.float32),
        dtype=dtype,
        **{name: rng.standard_normal(shapes[name]).astype(np.float32) for name in arrays},
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

    def test_what_a_format_holds_exactly_is_not_stored(self) -> None:
        a, rows = np.rint(self.a[:, :4] * 2.0), np.rint(self.rows[:, :4] * 2.0)
        exact, matrix = a @ rows.T.astype(np.float64), Matrix.of(rows)
        assert BFLOAT16.represents(exact).all()
        assert certainly_within(exact, a, matrix, BFLOAT16)
        exact[3, 2] = BFLOAT16.round(exact[3, 2] * (1.0 + 2.0**-7))
        assert not certainly_within(exact, a, matrix, BFLOAT16)

    def test_a_number_that_may_be_exact_is_made_a_ball_of(self) -> None:
        """Of short numbers that sum to more than bfloat16 holds, and are stored."""
        a, rows = np.rint(self.a[:4] * 16.0), np.rint(self.rows[:4] * 16.0)
        stored, matrix = BFLOAT16.round(a @ rows.T), Matrix.of(rows)
        assert certainly_within(stored, a, matrix, BFLOAT16)
        between = stored.copy()
        between[3, 2] += np.abs(between[3, 2]) * 2.0**-16  # as a float32 gradient may be
        assert certainly_within(between, a, matrix, BFLOAT16)

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
    def test_gradients_are_certain_of_all(self, form: str) -> None:
        verdict = verdict_of(plain(**FORMS[form]), "eager")
        found = {name: verdict.of(name).surely_right for name in verdict.given}
        cheap = {"gate_bias"}  # of which the whole radius is a sum over tokens
        short = {"hidden"} if form == "gate delta" else set()  # two sums, of four numbers each
        assert {name for name, sure in found.items() if not sure} <= cheap | short
        assert {"logits", "hidden", "gate_weight"} <= {*found}
        assert "at_logits" not in vars(verdict), "the radius was made all the same"

    @pytest.mark.parametrize("mode", ["hidden", "detached"])
    @pytest.mark.parametrize("form", FORMS)
    def test_gradients_are_certain_without_that_of_the_logits(self, form: str, mode: str) -> None:
        verdict = in_mode(verdict_of(plain(**FORMS[form]), "eager"), mode)
        if form in NARROW and mode == "hidden":
            return
        assert all(verdict.of(name).surely_right for name in verdict.given)
        assert "at_logits" not in vars(verdict), "the radius was made all the same"

    @pytest.mark.parametrize("form", FORMS)
    def test_a_start_is_no_wider_than_what_is_permitted(self, form: str) -> None:
        verdict = in_mode(verdict_of(plain(**FORMS[form]), "eager"), "hidden")
        points, ids = reference_points(verdict.bounds), verdict.ids
        start = least_start(verdict.bounds, points, ids, verdict.cotangent, verdict._walked)
        ball = verdict.at_logits.ball
        assert (start is None) == (form in NARROW)
        if start is not None:
            assert (np.abs(start.mid - ball.mid) + start.rad <= ball.rad * (1 + 2.0**-40)).all()
            interval = verdict.bounds.logits.permitted
            assert points.off is not None
            assert (points.logits - points.off >= interval.lo).all()
            assert (points.logits + points.off <= interval.hi).all()
            assert np.abs(interval.hi - points.logits).max() <= points.most

    @pytest.mark.parametrize("form", FORMS)
    def test_a_wrong_gradient_is_never_certain(self, form: str) -> None:
        case = plain(**FORMS[form])
        bounds = Bounds(case.config, case.inputs.router, Numerics())
        answer, given = differentiated(bounds, case, "eager")
        far = 1.001 if case.dtype == "float32" and form in PRECISE else 1.5
        for name in given:
            changed = given[name].copy()
            changed.flat[np.abs(changed).argmax()] *= far
            found = judged(bounds, case, answer, {**given, name: changed})
            assert found.of(name).wrong.sum() == 1, name
            hidden = in_mode(found, "hidden")
            assert name == "logits" or hidden.of(name).wrong.sum() == 1, name

    @pytest.mark.parametrize("axis", AXES)
    def test_the_parts_of_a_radius_are_no_more_than_the_whole(self, axis: str) -> None:
        seen = 0
        for seed in range(12):
            case = choose_gradient_case(seeded(seed), AXES[axis], Focus())
            seen += _is_within(case)
        assert seen > 1

    def test_two_slots_of_one_expert_are_not_certain(self) -> None:
        case = plain()
        bounds = Bounds(case.config, case.inputs.router, Numerics())
        answer, given = differentiated(bounds, case, "eager")
        assert answer.logits is not None
        ids = answer.expert_ids.copy()
        ids[0, 1] = ids[0, 0]
        logits, cotangent = answer.logits, case.inputs.cotangent.astype(np.float64)
        assert certainly_right(bounds, logits, answer.expert_ids, cotangent, given["logits"])
        assert not certainly_right(bounds, logits, ids, cotangent, given["logits"])

    @pytest.mark.parametrize("form", ["renormalised softmax", "softcap", "softmax"])
    def test_a_row_that_is_not_certain_is_walked_alone(self, form: str) -> None:
        case = plain(**FORMS[form])
        bounds = Bounds(case.config, case.inputs.router, Numerics())
        answer, given = differentiated(bounds, case, "eager")
        verdict = judged(bounds, case, answer, given)
        ids, cotangent, ball = answer.expert_ids, verdict.cotangent, verdict.at_logits.ball
        assert answer.logits is not None
        for share, right in ((0.999, True), (1.001, False)):
            moved = given["logits"].copy()
            moved[3, ids[3, 1]] = (ball.mid + share * ball.rad)[3, ids[3, 1]]
            assert certainly_right(bounds, answer.logits, ids, cotangent, moved) == right
            moved[: len(moved) // 2] = (ball.mid + 0.999 * ball.rad)[: len(moved) // 2]
            assert not certainly_right(bounds, answer.logits, ids, cotangent, moved)


def _is_within(case: GradientCase) -> bool:
    """Hold what is permitted for certain against the ball; whether there was any."""
    bounds = Bounds(case.config, case.inputs.router, Numerics())
    ids, cotangent = bounds.reference.expert_ids, case.inputs.cotangent.astype(np.float64)
    logits = stored_in(bounds).round(bounds.reference.logits).astype(np.float64)
    if not is_calm(bounds, logits, ids, cotangent):
        return False
    later = bounds.from_logits(type(bounds.logits.permitted).point(logits))
    ball, form = logit_gradients(bounds, later, ids, cotangent).ball, stored_in(bounds)
    parts = _parts(bounds, logits, ids, cotangent, form)
    for fine, mid, rad in parts:
        past = np.abs(mid - ball.mid) + rad > ball.rad * (1.0 + 2.0**-40)
        past &= fine[:, None]
        assert not past.any(), (case.config, np.argwhere(past)[0])
        assert ball.decided[fine].all()
    return bool(sum(fine.sum() for fine, _, _ in parts))


def _parts(bounds: Bounds, logits: Any, ids: Any, cotangent: Any, form: Any) -> list[Any]:
    """Return which rows each way decides, and by which centres and radii."""
    found = []
    if (points := points_of(bounds, logits, ids, cotangent)) is not None:
        rest = points.rest, points.rest_radius
        radii = [None if each is None else kept(points.rest, each, form) for each in rest[1:]]
        own = points.at, kept(points.at, points.at_radius, form)
        found.append((np.ones(len(ids), dtype=bool), own, (rest[0], radii[0])))
    if (slots := slot_gradients(bounds, LogitPoints(logits), ids, cotangent)) is not None:
        found.append((slots.fine, (slots.at.mid, slots.at.rad), (slots.rest, slots.rest_radius)))
    return [(fine, *_dense(ids, logits.shape, own, rest)) for fine, own, rest in found]


def _dense(ids: Any, shape: Any, own: Any, rest: Any) -> list[Any]:
    made = []
    for values, others in zip(own, rest, strict=True):
        whole = np.zeros(shape) if others is None else others.copy()
        np.put_along_axis(whole, ids, values, axis=1)
        made.append(whole)
    return made


@pytest.mark.parametrize(("number", "seed"), [(335, 77), (370, 77)])
def test_what_was_certain_once_and_wrong_is_open(number: int, seed: int) -> None:
    """A softmax in 16 bits whose h jumps at 0, and a float64 sum that lost what float32 tells."""
    assert differences(number, seed)[0] == []


def test_drawn_answers_have_the_verdict_of_the_whole_radius() -> None:
    found: list[str] = []
    counts: Counter[str] = Counter()
    for number in range(len(AXES)):
        lines, seen = differences(number, 5)
        found, counts = found + lines, counts + seen
    assert found == []
    assert counts["logits certain"] > len(AXES)
    assert counts["hidden certain"] > len(AXES)
    assert counts["logits wrong"]
    assert counts["hidden wrong"] > len(AXES)

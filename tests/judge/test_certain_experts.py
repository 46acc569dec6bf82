"""What is certain of experts' gradients is right by the whole radius, and is not asked of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.calls.expert_gradients import ExpertGradientCase
from moe_routing.conformance.generators.expert_gradients import with_cotangent
from moe_routing.conformance.generators.experts import Draft
from moe_routing.conformance.judge import certain_experts, relative_products
from moe_routing.conformance.judge.least import is_inexact
from moe_routing.conformance.judge.relative_products import within_even, within_relative
from moe_routing.conformance.trial.expert_gradients import ExpertGradientTrial, learning_of
from moe_routing.implementations import load_adapter
from moe_routing.reference import ExpertsConfig
from moe_routing.reference.formats import INPUT_FORMATS
from moe_routing.reference.routes import ABSENT

ACTIVATIONS = ("silu", "relu", "gelu", "gelu-tanh")
DTYPES = ("float32", "bfloat16", "float16")


def drafted(
    seed: int, activation: str, dtype: str, sizes: tuple[int, int] = (12, 9), tokens: int = 5
) -> ExpertGradientCase:
    rng = np.random.default_rng(seed)
    config = ExpertsConfig(num_experts=4, activation=activation)
    draft = Draft(rng, config, INPUT_FORMATS[dtype], "normal", dict(zip("HF", sizes, strict=True)))
    ids = np.argsort(rng.random((tokens, 3)), axis=1)[:, :2]  # the last expert has no route
    return with_cotangent(draft.case(ids))


@pytest.fixture
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certain_experts, "_PRODUCTS", 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_call_of_torch_is_certain(dtype: str) -> None:
    pytest.importorskip("torch")
    case = drafted(0, "silu", dtype, (256, 128), 64)
    trial = ExpertGradientTrial(load_adapter("torch"), case)
    assert not any(each.wrong.any() for each in trial.judged.values())
    assert all(each.surely_right for each in trial.judged.values())
    assert "permitted" not in vars(trial.learning), "the radius was made all the same"
    assert trial.allowance_used == 0.0


def test_a_small_call_is_judged_by_the_whole_radius() -> None:
    pytest.importorskip("torch")
    trial = ExpertGradientTrial(load_adapter("torch"), drafted(0, "silu", "float32"))
    assert not any(each.surely_right for each in trial.judged.values())
    assert trial.allowance_used > 0.0


@pytest.mark.usefixtures("every_size")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nothing_past_the_radius_is_certain(activation: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    learning = learning_of(drafted(3, activation, dtype, (32, 24)))
    middle = {name: ball.mid for name, ball in learning.permitted.items()}
    assert learning.judged(middle)["hidden"].surely_right
    for name, ball in learning.permitted.items():
        for _ in range(6):
            place = tuple(int(rng.integers(0, n)) for n in ball.mid.shape)
            moved = ball.mid.copy()
            moved[place] += ball.rad[place] * 1.0001 or 2.0**-20
            found = learning.judged({**middle, name: moved})[name]
            assert not found.surely_right
            assert found.wrong[place]


@pytest.mark.usefixtures("every_size")
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_certain_is_permitted(dtype: str) -> None:
    sure, refused = 0, 0
    for seed in range(12):
        rng, activation = np.random.default_rng(seed), ACTIVATIONS[seed % 4]
        sizes, tokens = ((32, 24), (48, 300), (300, 40))[seed % 3], (6, 40)[seed % 2]
        learning = learning_of(drafted(seed, activation, dtype, sizes, tokens))
        balls = learning.permitted
        middle = {name: ball.mid for name, ball in balls.items()}
        spread = {
            n: b.mid + b.rad * rng.uniform(-0.02, 0.02, b.mid.shape) for n, b in balls.items()
        }
        for name, ball in balls.items():
            for share in (0.0, 0.3, 0.9, 1.001, 1.05, 1.3):
                place = tuple(int(rng.integers(0, n)) for n in ball.mid.shape)
                moved = (spread if share < 0.5 else middle)[name].copy()
                moved[place] = ball.mid[place] + share * ball.rad[place]
                for given in (moved, moved.astype(np.float32)):
                    wrong = bool((~ball.contains(given)).any())
                    found = learning.judged({**middle, name: given})[name]
                    assert not (wrong and found.surely_right), (seed, name, share)
                    sure, refused = sure + found.surely_right, refused + wrong
    assert sure > 10
    assert refused > 100


@pytest.mark.usefixtures("every_size")
def test_an_absent_route_has_no_gradient_of_its_weight() -> None:
    case = drafted(3, "silu", "float32")
    ids = case.inputs.expert_ids.copy()
    ids[1, 1], weights = ABSENT, case.inputs.weights.copy()
    weights[1, 1] = 0.0
    learning = learning_of(_with(case, expert_ids=ids, weights=weights))
    middle = {name: ball.mid for name, ball in learning.permitted.items()}
    assert learning.judged(middle)["weights"].surely_right
    middle["weights"] = middle["weights"].copy()
    middle["weights"][1, 1] = 2.0**-30
    assert learning.judged(middle)["weights"].wrong[1, 1]


def _with(case: ExpertGradientCase, **changes: Any) -> ExpertGradientCase:
    return replace(case, inputs=replace(case.inputs, **changes))


def test_of_numbers_that_are_off_themselves_sums_are_left_out() -> None:
    rng = np.random.default_rng(0)
    a, rows = rng.standard_normal((5, 300), np.float32), rng.standard_normal((7, 300), np.float32)
    point, units = a @ rows.T, 2.0**-12
    whole = np.abs(a).astype(float) @ np.abs(rows).T
    for share, is_certain in ((0.9, True), (1.0, False)):
        answered = point + share * units * whole
        assert within_relative(answered, point, np.abs(a), rows, units, 0.0) is is_certain
    answered[2, 3] = np.nan
    assert not within_relative(answered, point, np.abs(a), rows, units, 0.0)


@pytest.mark.parametrize("hidden", [20, 300])
@pytest.mark.parametrize("store", [0.0, 2.0**-8])
def test_what_many_numbers_are_certain_of_their_magnitudes_say(
    hidden: int, store: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large calls, of which all numbers are looked at together."""
    for name, small in (("_BLOCK", 8), ("_CACHED", 8), ("_EACH", 0), ("_MANY", 10**9)):
        monkeypatch.setattr(relative_products, name, small)
    rng, sure, units = np.random.default_rng(hidden), 0, 2.0**-12
    for number in range(60):
        a, rows = (rng.standard_normal((n, hidden)).astype(np.float32) for n in (6, 7))
        a *= rng.random(a.shape) < (1.0, 0.2)[number % 2]
        point, sizes = a @ rows.T, np.abs(a) * np.float32(1.5)
        most = units * (sizes.astype(float) @ np.abs(rows).T) + store * np.abs(point.astype(float))
        share = rng.uniform(-1.0, 1.0, point.shape) * (0.1, 0.5, 0.9, 1.05)[number % 4]
        answered = point + share * most
        for each in (answered, answered.astype(np.float32)):
            for within in (within_relative, within_even):
                certain = within(each, point, sizes, rows, units, store)
                assert not certain or (np.abs(each - point.astype(float)) <= most).all()
                sure += certain
    assert sure > 60


def test_small_numbers_have_exact_sums() -> None:
    rng = np.random.default_rng(0)
    a, rows = rng.standard_normal((5, 40), np.float32), rng.standard_normal((7, 40), np.float32)
    assert is_inexact(a.astype(float), rows, a.astype(float) @ rows.T)
    a, rows = np.rint(a), np.rint(rows)
    assert not is_inexact(a.astype(float), rows, a.astype(float) @ rows.T)

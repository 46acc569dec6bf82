"""The point first: the verdicts of the whole radius, at a lower cost."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from near_experts import ran

from moe_routing.conformance.auditing.verdicts import findings
from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.generators.experts import VALUES, Wishes, choose_experts_case
from moe_routing.conformance.judge import experts as experts_judge
from moe_routing.conformance.judge import experts_point
from moe_routing.conformance.judge.activations import PLAIN
from moe_routing.conformance.judge.activations_float32 import Left, activated
from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.expert_ranges import all_decided
from moe_routing.conformance.judge.experts import Layer
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.experts import ExpertsTrial
from moe_routing.conformance.zoo import HONEST, MUTANTS
from moe_routing.conformance.zoo.residents import WHOLE
from moe_routing.conformance.zoo.router.runner import StagedRunner
from moe_routing.implementations import Capabilities
from moe_routing.implementations.models.seen import SeenExperts
from moe_routing.reference import ExpertsConfig, experts
from moe_routing.reference.activations import ACTIVATIONS
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, Floats, Ids

RUNNERS = [each for each in (*MUTANTS.values(), *HONEST.values()) if each.makes is StagedRunner]
WISHES = (
    Wishes(),
    Wishes(weights="zeros", poison="idle"),
    Wishes(weights="signed", poison="nan", offers={"absence": ("some", "tokens")}),
    Wishes(weights="one-hot"),
    Wishes(poison="inf", offers={"load": ("one", "two", "every-other")}),
)


def drawn(
    seed: int,
    wishes: Wishes,
    claims: Capabilities = WHOLE,
    **offers: tuple[object, ...],
) -> ExpertsCase:
    """Return a drawn case with tokens, so that there is something to judge."""
    rng = random.Random(seed)
    wished = replace(wishes, offers={**wishes.offers, "tokens": (1, 3, 17, 33), **offers})
    return choose_experts_case(lambda name, given: rng.choice(given), claims, wished)


def by_point(layer: Layer, values: Floats) -> Floats:
    """Return what is permitted by the point first, however small the call."""
    return experts_point.permitted(layer.near, values, lambda rows: layer.rows(rows).output)


def answers(layer: Layer) -> list[Floats]:
    """Return answers on both sides of every bound, and some that are no numbers."""
    mid, rad = layer.output.mid, np.where(layer.output.decided, layer.output.rad, 1.0)
    off = [mid + share * rad for share in (0.0, 0.5, -0.99, 1.01, -3.0)]
    last_bit = np.nextafter(mid.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    return [*off, last_bit, np.full(mid.shape, np.nan), np.where(mid > 0, np.inf, mid)]


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("dtype", INPUT_FORMATS)
def test_verdicts_are_those_of_the_whole_radius(values: str, dtype: str) -> None:
    for seed, wishes in product(range(2), WISHES):
        case = drawn(seed, wishes, values=(values,), dtype=(dtype,))
        layer = Layer(case.config, case.inputs)
        for answer in answers(layer):
            np.testing.assert_array_equal(by_point(layer, answer), layer.output.contains(answer))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_lower_bound_around_its_centre_lies_in_the_ball(activation: str) -> None:
    for seed, products in product(range(12), ("float32", "tf32")):
        case = drawn(seed, WISHES[seed % len(WISHES)], activation=(activation,))
        layer = Layer(case.config, case.inputs, products)
        near, ball = layer.near, layer.output
        sure = ball.decided & np.isfinite(near.mid)
        off = np.abs(near.mid - ball.mid) + near.low
        assert (off <= (1.0 + 2.0**-28) * ball.rad)[sure].all()
        assert (near.mid == ball.mid)[sure & (ball.rad == 0.0)].all()


def test_verdicts_on_mutants_and_variants_are_the_same() -> None:
    refused = 0
    for number, resident in enumerate(RUNNERS):
        case = drawn(number, WISHES[number % len(WISHES)], claims=resident.claims)
        trial = ExpertsTrial(resident.adapter(), case)
        try:
            output = trial.output
        except (Raised, Malformed):
            continue
        right = by_point(trial.layer, output)
        np.testing.assert_array_equal(right, trial.layer.output.contains(output))
        refused += not right.all()
    assert refused > len(RUNNERS) // 8


def hostile(rng: np.random.Generator, case: ExpertsCase) -> ExpertsCase:
    """Return the case with numbers in some arrays that overflow, underflow or are 0."""
    form, changed = INPUT_FORMATS[case.inputs.dtype], {}
    for name in ("hidden", "gate_weight", "up_weight", "down_weight", "down_bias"):
        array = getattr(case.inputs, name)
        if array is not None and rng.random() < 0.5:
            sizes = (2.0 ** rng.integers(-60, 30, array.shape), 2.0**-70, 2.0**12, 2.0**40)
            kept = rng.random(array.shape) < rng.random()
            scaled = np.where(kept, np.nan_to_num(array, posinf=1.0), 0.0) * sizes[rng.integers(4)]
            changed[name] = np.clip(form.round(scaled), -form.largest, form.largest)
    arrays = {name: array.astype(np.float32) for name, array in changed.items()}
    return replace(case, inputs=replace(case.inputs, **arrays))


def wide(seed: int) -> ExpertsCase:
    """Return a case of rows that are long enough for sums in parts."""
    rng, activation = np.random.default_rng(seed), ACTIVATIONS[seed % len(ACTIVATIONS)]
    drafted = {"biased": seed % 3 == 0, "weights": ("positive", "signed", "zeros")[seed % 3]}
    return ran(
        np.argsort(rng.random((33, 4)), axis=1)[:, : 1 + seed % 4],
        dtype=list(INPUT_FORMATS)[seed % 3],
        values=("normal", "wide", "exact")[seed % 4 % 3],
        hidden=(64, 257)[seed % 2],
        width=(130, 48)[seed % 2],
        drafted={**drafted, "poison": ("", "idle")[seed % 2]},
        activation=activation,
        gated=activation == "clamped-swiglu" or bool(seed % 7),
        weight_on=("output", "input")[seed % 5 % 2],
    )


def test_hostile_numbers_are_judged_as_by_the_whole_radius() -> None:
    decided = {np.dtype(np.float32): 0, np.dtype(np.float64): 0}
    for seed in range(12):
        case = hostile(np.random.default_rng(seed), wide(seed)) if seed % 2 else wide(seed)
        layer = Layer(case.config, case.inputs)
        near, ball = layer.near, layer.output
        sure = ball.decided & np.isfinite(near.mid)
        off = np.abs(near.mid - ball.mid) + near.low
        assert (off <= (1.0 + 2.0**-28) * ball.rad)[sure].all()
        for answer in (*answers(layer), near.mid + near.low * (1.0 - 2.0**-30)):
            np.testing.assert_array_equal(by_point(layer, answer), ball.contains(answer))
            decided[near.mid.dtype] += int(near.holds(answer).sum())
    assert min(decided.values()) > 5_000, "each of the two decides many outputs"


def large(values: str = "normal", dtype: str = "float32", **drafted: str) -> ExpertsCase:
    """Return a call that the point is asked first for: as few products as that takes."""
    ids = np.argsort(np.random.default_rng(0).random((64, 4)), axis=1)[:, :2]
    sizes = {"hidden": 128, "width": 128, "values": values, "dtype": dtype}
    return ran(ids, 4, activation="silu", drafted=drafted, **sizes)


@pytest.mark.parametrize("dtype", INPUT_FORMATS)
def test_float32_judges_a_call_whose_sums_round_and_float64_one_that_may_be_exact(
    dtype: str,
) -> None:
    rounds, exact = large(dtype=dtype), large("exact", dtype)
    for case, found in ((rounds, np.float32), (exact, np.float64)):
        layer = Layer(case.config, case.inputs)
        honest = experts(case.config, case.inputs).astype(np.float32).astype(np.float64)
        assert layer.near.mid.dtype == found
        assert layer.permits(honest).all()
    layer = Layer(rounds.config, rounds.inputs)
    assert layer.near.holds(experts(rounds.config, rounds.inputs)).all()


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0, 300.0])
def test_activations_in_float32_lie_in_the_balls_of_their_arguments(scale: float) -> None:
    x = (np.random.default_rng(3).standard_normal((1, 20_000)) * scale).astype(np.float32)
    for name, ball in PLAIN.items():
        left = Left(x.copy(), np.zeros((1, 1), np.float32))
        config = ExpertsConfig(num_experts=1, gated=False, activation=name)
        with np.errstate(over="ignore"):
            values = activated(config, None, left, FLOAT32).values
        assert ball(Ball.exact(x), FLOAT32).contains(values).all(), name


def test_a_large_call_is_judged_without_a_radius_where_it_is_right() -> None:
    case = large()
    layer = Layer(case.config, case.inputs)
    right = experts(case.config, case.inputs).astype(np.float32).astype(np.float64)
    assert layer.permits(right).all()
    assert "output" not in vars(layer)
    wrong = right.copy()
    wrong[5, 7] += 0.01
    assert np.argwhere(~layer.permits(wrong)).tolist() == [[5, 7]]
    assert "output" not in vars(layer)


def test_a_large_call_uses_the_allowance_of_the_token_nearest_to_its_bound() -> None:
    case = large()
    whole, layer = (Layer(case.config, case.inputs) for _ in range(2))
    values = whole.output.mid.copy()
    values[5] += 0.4 * whole.output.rad[5]
    ball, row = layer.closest(values)
    assert row.shape == (1, 128)
    np.testing.assert_allclose(np.abs(row - ball.mid) / ball.rad, 0.4, rtol=1e-4)


def test_nothing_of_a_drawn_call_is_large() -> None:
    assert not any(
        experts_point.is_large(drawn(seed, Wishes(), hidden=(33,), width=(33,)).inputs)
        for seed in range(30)
    )


def test_what_is_decided_at_a_glance_is_decided() -> None:
    seen = 0
    for seed in range(60):
        case = drawn(seed, WISHES[seed % len(WISHES)], activation=(ACTIVATIONS[seed % 5],))
        case = hostile(np.random.default_rng(seed), case) if seed % 2 else case
        layer = Layer(case.config, case.inputs)
        if all_decided(case.config, case.inputs, layer.form):
            assert layer.output.decided.all()
            seen += 1
    assert seen > 10


@pytest.mark.parametrize("wrong", [False, True])
def test_an_audit_of_a_large_call_asks_for_radii_only_where_something_is_wrong(wrong: bool) -> None:
    case = large(dtype="bfloat16")
    output = experts(case.config, case.inputs)
    output[5, 7] += 0.5 * wrong
    seen = SeenExperts(
        path="a.block.experts",
        block="a.block",
        tokens=np.arange(case.num_tokens),
        config=case.config,
        inputs=case.inputs,
        output=output,
    )
    (finding,) = findings(seen)
    assert (finding.status, finding.tokens) == (("fail" if wrong else "pass"), 64)
    assert Layer(case.config, case.inputs).certainly_right(output) is not wrong


def test_memory_of_a_call_that_is_all_wrong_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    case, counts = large(), []
    layer, rows = Layer(case.config, case.inputs), Layer.rows

    def counted(self: Layer, some: Ids) -> Layer:
        counts.append(len(some))
        return rows(self, some)

    monkeypatch.setattr(experts_judge, "_SLOTS", 2 * 128 * 10)
    monkeypatch.setattr(Layer, "rows", counted)
    assert not layer.permits(layer.near.mid + 9.0).any()
    assert (max(counts), sum(counts)) == (10, 64)

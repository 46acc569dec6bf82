"""The point first: the verdicts of the whole radius, at a lower cost."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from near_experts import ran

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.generators.experts import VALUES, Wishes, choose_experts_case
from moe_routing.conformance.judge import experts_point
from moe_routing.conformance.judge.experts import Layer
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import Raised
from moe_routing.conformance.trial.experts import ExpertsTrial
from moe_routing.conformance.zoo import HONEST, MUTANTS
from moe_routing.conformance.zoo.residents import WHOLE
from moe_routing.conformance.zoo.router.runner import StagedRunner
from moe_routing.implementations import Capabilities
from moe_routing.reference import experts
from moe_routing.reference.activations import ACTIVATIONS
from moe_routing.reference.formats import INPUT_FORMATS, Floats

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
def test_a_lower_bound_is_lower_and_its_centre_the_same(activation: str) -> None:
    for seed, products in product(range(12), ("float32", "tf32")):
        case = drawn(seed, WISHES[seed % len(WISHES)], activation=(activation,))
        layer = Layer(case.config, case.inputs, products)
        near, ball = layer.near, layer.output
        assert (near.low <= ball.rad)[np.isfinite(near.low)].all()
        sure = ball.decided & np.isfinite(near.low)
        assert (np.abs(near.mid - ball.mid) <= 2.0**-28 * ball.rad)[sure].all()
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


def large(**drafted: str) -> ExpertsCase:
    """Return a call that the point is asked first for: as few products as that takes."""
    ids = np.argsort(np.random.default_rng(0).random((64, 4)), axis=1)[:, :2]
    sizes = {"hidden": 128, "width": 128, "values": "normal"}
    return ran(ids, 4, activation="silu", drafted=drafted, **sizes)


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

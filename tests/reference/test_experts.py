"""The reference of a layer's experts: against one route at a time, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from moe_routing.reference import (
    ExpertsConfig,
    ExpertsInputs,
    down_weights,
    expert_outputs,
    experts,
    gate_up,
    gate_up_bias,
    up_weights,
)
from moe_routing.reference.activations import ACTIVATIONS

RNG = np.random.default_rng(3)
T, H, F, E, K = 5, 6, 4, 3, 2
IDS = np.array([[0, 1], [2, 2], [-1, 0], [1, -1], [-1, -1]])


def eighths(*shape: int) -> Any:
    return (RNG.integers(-12, 13, shape) / 8.0).astype(np.float32)


def given(**others: Any) -> ExpertsInputs:
    made = {
        "hidden": eighths(T, H),
        "expert_ids": IDS,
        "weights": np.where(IDS < 0, 0, np.abs(eighths(T, K)) + 0.125).astype(np.float32),
        "gate_weight": eighths(E, F, H),
        "up_weight": eighths(E, F, H),
        "down_weight": eighths(E, H, F),
    }
    return ExpertsInputs(**{**made, **others})


def activated(name: str, x: float) -> float:
    if name == "silu":
        return x / (1 + math.exp(-x))
    if name == "gelu":
        return x / 2 * (1 + math.erf(x / math.sqrt(2)))
    if name == "gelu-tanh":
        return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return max(x, 0.0)


def by_hand(config: ExpertsConfig, inputs: ExpertsInputs) -> list[list[float]]:
    """The same, one route after the other, one number after the other."""
    total = [[0.0] * H for _ in range(T)]
    for t in range(T):
        for e, w in zip(inputs.expert_ids[t], inputs.weights[t].tolist(), strict=True):
            if e < 0:
                continue
            x = [float(v) * (w if config.weight_on == "input" else 1) for v in inputs.hidden[t]]
            inner = [one_row(config, inputs, e, f, x) for f in range(F)]
            for h in range(H):
                y = sum(a * float(b) for a, b in zip(inner, inputs.down_weight[e, h], strict=True))
                y += 0.0 if inputs.down_bias is None else float(inputs.down_bias[e, h])
                total[t][h] += y * (1 if config.weight_on == "input" else w)
    return total


def one_row(config: ExpertsConfig, inputs: ExpertsInputs, e: int, f: int, x: list[float]) -> float:
    def dot(weight: Any, bias: Any) -> float:
        found = sum(a * float(b) for a, b in zip(x, weight[e, f], strict=True))
        return found + (0.0 if bias is None else float(bias[e, f]))

    u = dot(inputs.up_weight, inputs.up_bias)
    if not config.gated:
        return activated(config.activation, u)
    g = dot(inputs.gate_weight, inputs.gate_bias)
    if config.activation == "clamped-swiglu":
        g, u = min(g, config.limit), max(-config.limit, min(u, config.limit))
        return g / (1 + math.exp(-config.alpha * g)) * (u + 1)
    return activated(config.activation, g) * u


BIASES = {"gate_bias": eighths(E, F), "up_bias": eighths(E, F), "down_bias": eighths(E, H)}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("weight_on", ["output", "input"])
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_what_one_gets_by_hand(
    activation: Any, gated: bool, weight_on: Any, biased: bool
) -> None:
    if activation == "clamped-swiglu" and not gated:
        return
    config = ExpertsConfig(
        num_experts=E, gated=gated, activation=activation, weight_on=weight_on, limit=1.0
    )
    biases = dict(BIASES) if biased else {}
    if not gated:
        biases.pop("gate_bias", None)
    inputs = given(**biases, **({} if gated else {"gate_weight": None}))
    np.testing.assert_allclose(experts(config, inputs), by_hand(config, inputs), rtol=1e-12)


CONFIG = ExpertsConfig(num_experts=E)


def test_an_expert_that_nobody_chose_is_never_run() -> None:
    ids = np.where(IDS == 2, 1, IDS)
    up = eighths(E, F, H)
    up[2] = np.nan
    found = experts(CONFIG, given(expert_ids=ids, up_weight=up))
    assert np.isfinite(found).all()
    assert (found[4] == 0).all()


def test_a_weight_of_0_adds_exactly_0_whatever_the_expert_answers() -> None:
    up, weights = eighths(E, F, H), np.array([[1, 0], [1, 1], [0, 1], [0, 0], [0, 0]], np.float32)
    up[1] = np.inf
    found = experts(CONFIG, given(up_weight=up, weights=weights))
    assert np.isfinite(found).all()
    assert not np.isfinite(expert_outputs(CONFIG, given(up_weight=up))[0, 1]).all()


def test_gate_and_up_join_in_every_layout() -> None:
    inputs = given(up_bias=eighths(E, F))
    gate, up = inputs.gate_weight, inputs.up_weight
    assert gate is not None
    joined = gate_up(inputs)
    assert np.array_equal(joined[:, :F], gate)
    assert np.array_equal(joined[:, F:], up)
    mixed = gate_up(inputs, interleaved=True)
    assert np.array_equal(mixed[:, ::2], gate)
    assert np.array_equal(mixed[:, 1::2], up)
    assert np.array_equal(gate_up(inputs, transposed=True), joined.swapaxes(1, 2))
    bias = gate_up_bias(inputs, interleaved=True)
    assert bias is not None
    assert np.array_equal(bias[:, 1::2], BIASES["up_bias"]) is False
    assert (bias[:, ::2] == 0).all()
    assert gate_up_bias(given()) is None
    assert np.array_equal(down_weights(inputs, transposed=True)[1], inputs.down_weight[1].T)
    assert np.array_equal(up_weights(inputs, transposed=True)[1], up[1].T)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"expert_ids": np.full((T, K), 3)}, r"expert_ids\[0, 0\]=3: ids are below num_experts=3"),
        ({"weights": np.ones((T, K), np.float32)}, r"weights\[2, 0\]=1.0: expert_ids is -1 there"),
        ({"weights": np.full((T, K), 0.1, np.float32), "dtype": "bfloat16"}, "must be exact there"),
        ({"gate_weight": None, "gate_bias": np.zeros((E, F))}, "gate_bias without gate_weight"),
        ({"down_weight": np.zeros((E, F, H))}, r"Expected down_weight of shape \[E, H, F\]"),
    ],
)
def test_what_the_inputs_refuse(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        given(**wrong)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"num_experts": 4}, r"Expected up_weight of shape \[4, F, H\]"),
        ({"gated": False}, "Expected gate_weight to be None for gated=False but got an array"),
        ({"activation": "swish"}, "Expected activation to be one of silu"),
        ({"activation": "clamped-swiglu", "gated": False}, "it is gated"),
        ({"limit": 0.0}, "Expected limit > 0"),
    ],
)
def test_what_the_configuration_refuses(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        experts(ExpertsConfig(**{"num_experts": E, **config}), given())


def test_gate_and_up_do_not_join_without_a_gate() -> None:
    with pytest.raises(ValueError, match="gate_weight is None"):
        gate_up(given(gate_weight=None))

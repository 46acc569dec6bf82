"""Dispatch and shared experts: the score a dispatcher picks, and the MLP of every token."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from moe_routing.reference import (
    FORMATS,
    Groups,
    Renormalize,
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    SharedExpertInputs,
    dispatch,
    dispatched_config,
    route,
    shared_contribution,
)
from moe_routing.reference.config import SCORES
from moe_routing.reference.inputs import BIAS_ON
from moe_routing.reference.shared_experts import SHARED_KINDS

BOUND = 1e-11
"""How far two float64 computations of a shared expert may differ on the inputs drawn here.

All arrays are within 1 and H, I <= 8, with u = 2**-53. A projection a or b of the input is at
most 8 and off by 9 roundings, 72u. silu has a slope of at most 1.1, so silu(a) * b <= 64 is off
by 1.1 * 72u * 8 + 8 * 72u, and 5 roundings of its own: 1530u. The output, at most 8 * 64 = 512,
is off by 8 * 1530u and 9 roundings: 16900u. A sigmoid gate has a slope of at most 1/4: it adds
512 * 72u / 4 and 3 roundings, 10800u. Both sides together stay below 2 * 27700u = 6.2e-12.
"""


def dispatch_case(*, bias: list[float] | None, on: str = "gate", **axes: Any) -> tuple:
    config = RouterConfig(**{"num_experts": 4, "top_k": 2, **axes})
    logits = [[1.0, 0.5, -0.5, 2.0], [0.0, 3.0, -2.0, 1.0]]
    inputs = RouterInputs.from_logits(logits, selection_bias=bias, selection_bias_on=on)
    return config, inputs


# --- dispatch -----------------------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("on", BIAS_ON)
@pytest.mark.parametrize(
    ("bias", "picked"),
    [
        (None, "softmax"),
        ([0.0, 0.0, 0.0, 0.0], "sigmoid"),
        ([0.5, -0.5, 2.0, 0.0], "sigmoid"),
        ([-1.0, -math.inf, -1.0, -1.0], "sigmoid"),
    ],
)
def test_dispatch_picks_sigmoid_iff_a_selection_bias_is_there(
    bias: list[float] | None, picked: str, on: str, score: str
) -> None:
    axes = {"weights_from": "softmax_of_selected"} if score == "identity" else {}
    config, inputs = dispatch_case(bias=bias, on=on, score=score, **axes)
    explicit, _ = dispatch_case(bias=bias, on=on, score=picked, **axes)
    assert dispatched_config(config, inputs) == explicit, "only the score is replaced"
    got, expected = dispatch(config, inputs), route(explicit, inputs)
    for name in ("weights", "expert_ids", "logits"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), name)


def test_dispatch_carries_out_the_rest_of_the_configuration() -> None:
    axes = {"groups": Groups(count=2, kept=1), "scale": 2.5, "renormalize": Renormalize()}
    for bias, picked in ((None, "softmax"), ([0.0, 0.0, 9.0, 0.0], "sigmoid")):
        config, inputs = dispatch_case(bias=bias, score="sqrtsoftplus", **axes)
        explicit, _ = dispatch_case(bias=bias, score=picked, **axes)
        got, expected = dispatch(config, inputs), route(explicit, inputs)
        assert got.expert_ids.tolist() == expected.expert_ids.tolist()
        assert got.weights.tolist() == expected.weights.tolist()
        assert got.weights.sum(axis=1) == pytest.approx([2.5, 2.5], rel=1e-15)


def test_a_linear_gate_bias_is_no_selection_bias() -> None:
    config = RouterConfig(num_experts=2, top_k=1, score="sigmoid")
    inputs = RouterInputs(hidden=[[1.0, 2.0]], gate_weight=np.eye(2), gate_bias=[0.5, 0.0])
    assert dispatched_config(config, inputs).score == "softmax"


def test_dispatch_with_a_table_is_softmax() -> None:
    config = RouterConfig(num_experts=2, top_k=1, score="sigmoid")
    inputs = RouterInputs.from_logits([[1.0, 2.0]], expert_table=[[0]], token_ids=[0])
    got = dispatch(config, inputs)
    assert got.expert_ids.tolist() == [[0]]
    assert got.weights[0, 0] == pytest.approx(1 / (1 + math.e), rel=1e-15)


# --- shared experts -----------------------------------------------------------------------


def naive_contribution(inputs: SharedExpertInputs, gated: bool) -> list[list[float]]:
    """Token by token, in Python numbers."""
    return [naive_token(list(map(float, x)), inputs, gated) for x in inputs.hidden]


def naive_token(x: list[float], inputs: SharedExpertInputs, gated: bool) -> list[float]:
    inner = []
    for gate_row, up_row in zip(inputs.gate_proj, inputs.up_proj, strict=True):
        gate, up = dot(gate_row, x), dot(up_row, x)
        inner.append(gate / (1.0 + math.exp(-gate)) * up)
    share = 1.0 / (1.0 + math.exp(-dot(inputs.gate[0], x))) if gated else 1.0
    return [share * dot(row, inner) for row in inputs.down_proj]


def dot(row: np.ndarray, x: list[float]) -> float:
    return math.fsum(float(w) * v for w, v in zip(row, x, strict=True))


def shared_inputs(seed: int, *, gated: bool) -> SharedExpertInputs:
    rng = np.random.default_rng(seed)
    T, H, I = (int(n) for n in rng.integers([0, 1, 1], [6, 9, 9]))  # noqa: E741
    dtype = str(rng.choice(["float32", "bfloat16", "float16"]))

    def array(*shape: int) -> np.ndarray:
        values = np.clip(rng.normal(size=shape), -1.0, 1.0)
        return FORMATS[dtype].round(values).astype(np.float32)

    return SharedExpertInputs(
        hidden=array(T, H),
        gate_proj=array(I, H),
        up_proj=array(I, H),
        down_proj=array(H, I),
        gate=array(1, H) if gated else None,
        dtype=dtype,
    )


@pytest.mark.parametrize("kind", ["singular", "plural", "mlp"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_the_contribution_agrees_with_naive_loops(kind: str, gated: bool, seed: int) -> None:
    inputs = shared_inputs(seed, gated=gated)
    got = shared_contribution(SharedExpertConfig(kind=kind, gated=gated), inputs)
    expected = np.array(naive_contribution(inputs, gated)).reshape(inputs.hidden.shape)
    assert (got.shape, got.dtype) == (inputs.hidden.shape, np.float64)
    np.testing.assert_allclose(got, expected, rtol=0.0, atol=BOUND)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_gate_logit_of_zero_gives_exactly_one_half(dtype: str) -> None:
    fields = shared_inputs(3, gated=False).arrays()
    fields = {name: np.round(array * 4) / 4 for name, array in fields.items()}
    hidden_size = fields["hidden"].shape[1]
    whole = shared_contribution(SharedExpertConfig(), SharedExpertInputs(**fields, dtype=dtype))
    zero = np.zeros((1, hidden_size), np.float32)
    half = shared_contribution(
        SharedExpertConfig(gated=True), SharedExpertInputs(**fields, gate=zero, dtype=dtype)
    )
    assert whole.any(), "a contribution of zero would prove nothing"
    np.testing.assert_array_equal(half, whole / 2, "the gate acts once, as sigmoid(0) = 1/2")


def test_the_gate_is_one_number_a_token() -> None:
    inputs = shared_inputs(5, gated=True)
    plain = SharedExpertInputs(**{**inputs.arrays(), "gate": None})
    gated = shared_contribution(SharedExpertConfig(gated=True), inputs)
    whole = shared_contribution(SharedExpertConfig(), plain)
    assert gated.size, "an empty batch would prove nothing"
    logits = [dot(inputs.gate[0], list(map(float, x))) for x in inputs.hidden]
    shares = np.array([1.0 / (1.0 + math.exp(-z)) for z in logits])
    # A gate logit of 8 at most is off by 72 * 2**-53, and so, relatively, is its sigmoid.
    np.testing.assert_allclose(gated, whole * shares[:, None], rtol=1e-13, atol=0.0)


def test_the_place_of_the_module_changes_nothing() -> None:
    inputs = shared_inputs(6, gated=True)
    answers = [
        shared_contribution(SharedExpertConfig(kind=kind, gated=True), inputs)
        for kind in SHARED_KINDS
        if kind != "none"
    ]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


@pytest.mark.parametrize("tokens", [0, 1, 4])
def test_no_shared_expert_contributes_zeros(tokens: int) -> None:
    hidden = np.full((tokens, 3), np.nan, np.float32)
    square = np.ones((3, 3), np.float32)
    inputs = SharedExpertInputs(hidden=hidden, gate_proj=square, up_proj=square, down_proj=square)
    got = shared_contribution(SharedExpertConfig(kind="none"), inputs)
    assert (got.shape, got.dtype) == ((tokens, 3), np.float64)
    assert not got.any(), "zeros, whatever the arrays hold"


def test_a_nan_token_leaves_the_other_contributions_alone() -> None:
    inputs = shared_inputs(5, gated=True)
    bad = inputs.hidden.copy()
    bad[0, 0] = np.nan
    twin = shared_contribution(SharedExpertConfig(gated=True), inputs)
    fields = {**inputs.arrays(), "hidden": bad}
    got = shared_contribution(SharedExpertConfig(gated=True), SharedExpertInputs(**fields))
    assert len(got) > 1, "there must be other tokens"
    assert np.isnan(got[0]).all(), "a NaN token has a NaN contribution"
    np.testing.assert_array_equal(got[1:], twin[1:])


def test_a_far_negative_gate_logit_switches_the_shared_expert_off() -> None:
    ones = np.ones((2, 2), np.float32)
    inputs = SharedExpertInputs(
        hidden=ones, gate_proj=ones, up_proj=ones, down_proj=ones, gate=ones[:1] * -(2.0**99)
    )
    got = shared_contribution(SharedExpertConfig(gated=True), inputs)
    assert got.tolist() == [[0.0, 0.0], [0.0, 0.0]]

"""Logit bounds against exact arithmetic: honest sums and stores inside, mistakes outside.

Logits are compared with ``fractions.Fraction``. Every honest variant must lie within the judge's
intervals, in whatever order it sums and wherever it stores.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from gates import (
    DTYPES,
    ORDERS,
    PLAIN,
    TERMS,
    Array,
    assert_permitted,
    assert_refused,
    assert_true_logits_permitted,
    bounds_of,
    cancelling,
    made,
    matmul,
    normal,
    uneven,
)

from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.reference import RouterConfig, RouterInputs, route
from moe_routing.reference.formats import INPUT_FORMATS

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("numbers", [normal, cancelling, uneven])
@pytest.mark.parametrize("size", [1, 2, 7, 33, 257])
def test_no_order_of_summation_leaves_the_bounds(
    dtype: str, numbers: Callable[..., tuple[Array, Array]], size: int
) -> None:
    inputs = made(dtype, *numbers(np.random.default_rng(size), size))
    form = INPUT_FORMATS[dtype]
    float32, stored = (bounds_of(inputs, logits_dtype=kind) for kind in ("float32", "input"))
    for order in ORDERS:
        got = matmul(inputs.hidden, inputs.gate_weight, order)
        assert_permitted(float32, got, f"{order} sums of {dtype}")
        assert_permitted(stored, form.round(got), f"{order} sums stored in {dtype}")
    if size <= 33:
        assert_true_logits_permitted(float32, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("terms", TERMS, ids="+".join)
@pytest.mark.parametrize("seed", range(3))
def test_terms_stored_apart_in_any_order_stay_within_the_bounds(
    dtype: str, terms: tuple[str, ...], seed: int
) -> None:
    # the delta nearly annuls the gate: each term's rounding is then far above the sum's own
    rng, form = np.random.default_rng(seed), INPUT_FORMATS[dtype]
    x, w = normal(rng, 33)
    delta = -w * (1 + rng.normal(size=w.shape) * 0.02)
    extra = {"gate_delta": delta, "gate_bias": rng.normal(size=4)}
    inputs = made(dtype, x, w, **{name: extra[name] for name in terms})
    bound = bounds_of(inputs, logits_dtype="input")
    assert_true_logits_permitted(bound, inputs)
    for order in ORDERS:
        apart = [form.round(matmul(inputs.hidden, inputs.gate_weight, order))]
        if inputs.gate_delta is not None:
            apart.append(form.round(matmul(inputs.hidden, inputs.gate_delta, order)))
        if inputs.gate_bias is not None:
            apart.append(np.broadcast_to(inputs.gate_bias, apart[0].shape).astype(np.float64))
        for arranged in itertools.permutations(apart):
            total = arranged[0]
            for term in arranged[1:]:
                total = form.round(total + term)
            assert_permitted(bound, total, f"{order} sums, terms stored apart in {dtype}")


def test_an_honest_bfloat16_lora_path_is_right_though_one_rounding_cannot_explain_it() -> None:
    rng = np.random.default_rng(0)
    x, w = normal(rng, 64)
    inputs = made("bfloat16", x, w, gate_delta=-w * (1 + rng.normal(size=w.shape) * 2.0**-7))
    tensors = {name: torch.tensor(a).bfloat16() for name, a in inputs.arrays().items()}
    linear = torch.nn.functional.linear
    got = linear(tensors["hidden"], tensors["gate_weight"])
    got = (got + linear(tensors["hidden"], tensors["gate_delta"])).double().numpy()
    bound = bounds_of(inputs, logits_dtype="input")
    assert_permitted(bound, got, "gate and delta in bfloat16")
    one_rounding = INPUT_FORMATS["bfloat16"].unit_roundoff * np.abs(bound.reference)
    beyond = (np.abs(got - bound.reference) / one_rounding).max()
    assert beyond > 50, f"only {beyond:.3g} times one rounding: this test saw nothing"


def test_a_delta_merged_into_a_bfloat16_gate_is_wrong_and_merged_in_float32_right() -> None:
    # LOG-2; a delta of a 300th vanishes in bfloat16 entirely
    rng = np.random.default_rng(1)
    x, w = rng.integers(1, 3, (2, 8)), rng.integers(1, 3, (4, 8))
    inputs = made("bfloat16", x, w, gate_delta=np.full(w.shape, 2.0**-9))
    merged = inputs.gate_weight + inputs.gate_delta
    bound = bounds_of(inputs, logits_dtype="float32")
    assert_permitted(bound, matmul(inputs.hidden, merged, "forward"), "the float32 merge")
    rounded = INPUT_FORMATS["bfloat16"].round(merged)
    assert_refused(bound, matmul(inputs.hidden, rounded, "forward"), "the bfloat16 merge")


def test_float16_logits_below_the_normal_range_round_by_an_absolute_amount() -> None:
    rng = np.random.default_rng(2)
    inputs = made("float16", rng.normal(size=(8, 4)), rng.normal(size=(8, 4)) * 1e-7)
    got = INPUT_FORMATS["float16"].round(matmul(inputs.hidden, inputs.gate_weight, "torch"))
    bound = bounds_of(inputs, logits_dtype="input")
    assert_permitted(bound, got, "float16 logits near 1e-7")
    relative = INPUT_FORMATS["float16"].unit_roundoff * np.abs(bound.reference)
    beyond = (np.abs(got - bound.reference) / relative).max()
    assert beyond > 100, f"only {beyond:.3g} relative roundings: this test saw nothing"


def test_tokens_whose_float16_logits_overflow_are_judged_for_their_ids_only() -> None:
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(64, 32)) * 300
    hidden[::2] /= 300
    inputs = made("float16", hidden, rng.normal(size=(8, 32)) * 40)
    logits = INPUT_FORMATS["float16"].round(matmul(inputs.hidden, inputs.gate_weight, "torch"))
    config = RouterConfig(num_experts=8, top_k=2, logits_dtype="input")
    bounds = Bounds(config, inputs, PLAIN)
    infinite = np.isinf(logits).any(axis=1)
    assert infinite.mean() > 0.4, "few tokens overflow: this test saw nothing"
    assert not bounds.judged[infinite].any(), "a token with infinite logits is judged"
    assert bounds.judged[::2].all(), "small tokens are not judged"
    right = route(config, inputs)
    weights = np.where(infinite[:, None], np.nan, right.weights)
    ids = np.where(infinite[:, None], [[7, 0]], right.expert_ids)
    answer = Answer(weights=weights, expert_ids=ids, logits=logits, logits_dtype="float16")
    assert judge(bounds, answer, logits="copy").right, "an overflowing token decided something"
    twice = Answer(weights=weights, expert_ids=np.where(infinite[:, None], 7, ids))
    assert not judge(bounds, twice).distinct[infinite].any(), "duplicate ids passed"


def test_a_bound_counts_only_products_that_are_not_zero() -> None:
    hidden = np.zeros((1, 4096), np.float32)
    hidden[0, :2] = 1.1, 1.3
    gate = np.full((1, 4096), 0.7, np.float32)
    few = bounds_of(RouterInputs(hidden=hidden, gate_weight=gate))
    alone = bounds_of(RouterInputs(hidden=hidden[:, :2], gate_weight=gate[:, :2]))
    assert few.permitted.hi[0, 0] == alone.permitted.hi[0, 0], "zeros widened the bound"


def test_infinite_linear_biases_give_infinite_logits_exactly() -> None:
    bias = np.array([-np.inf, 0.5, np.inf], np.float32)
    inputs = RouterInputs(
        hidden=np.ones((2, 3), np.float32), gate_weight=np.eye(3, dtype=np.float32), gate_bias=bias
    )
    permitted = bounds_of(inputs).permitted
    assert permitted.lo[:, [0, 2]].tolist() == [[-np.inf, np.inf]] * 2, "the lower endpoints"
    assert permitted.hi[:, [0, 2]].tolist() == [[-np.inf, np.inf]] * 2, "the upper endpoints"

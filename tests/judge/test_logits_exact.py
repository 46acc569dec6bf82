"""Exact logits, on which one ulp is wrong; declared numerics; and the input norm."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from gates import (
    DTYPES,
    TERMS,
    Array,
    assert_permitted,
    assert_refused,
    bounds_of,
    made,
    matmul,
    normal,
)

from moe_routing.conformance.judge.exactness import lowest_bit
from moe_routing.conformance.judge.numerics import without_idle
from moe_routing.implementations import Numerics
from moe_routing.reference import RmsNorm, RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, FloatFormat

torch = pytest.importorskip("torch")

CONFIG = RouterConfig(num_experts=1, top_k=1)


def lattice(dtype: str, terms: tuple[str, ...] = (), size: int = 4096) -> RouterInputs:
    """Integers with ``|x|.|W|`` within ``2**precision``."""
    rng, entry = np.random.default_rng(size), 8 if dtype == "float32" else 2
    hidden = rng.integers(-entry, entry + 1, (3, size))
    most = 2 ** (INPUT_FORMATS[dtype].precision - 3) // entry**2
    hidden[rng.random((3, size)).argsort(axis=1) >= most] = 0
    draws = {"gate_delta": rng.integers(-1, 2, (5, size)), "gate_bias": rng.integers(-2, 3, 5)}
    gate = rng.integers(-entry, entry + 1, (5, size))
    return made(dtype, hidden, gate, **{name: draws[name] for name in terms})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("terms", [(), *TERMS], ids="+".join)
@pytest.mark.parametrize("size", [7, 4096])
def test_on_exact_cases_a_logit_that_is_one_ulp_off_is_wrong(
    dtype: str, terms: tuple[str, ...], size: int
) -> None:
    inputs = lattice(dtype, terms, size)
    for kind, form in (("float32", FLOAT32), ("input", INPUT_FORMATS[dtype])):
        bound = bounds_of(inputs, logits_dtype=kind)
        assert bound.exact.all(), f"{dtype} integers are not recognised as exact in {kind}"
        radius = bound.permitted.hi - bound.reference
        assert (radius <= (1 + len(terms)) * form.tiny).all(), f"exact, but the radius is {radius}"
        for order in ("forward", "shuffled", "torch"):
            got = matmul(inputs.hidden, inputs.gate_weight, order)
            if inputs.gate_delta is not None:
                got = got + matmul(inputs.hidden, inputs.gate_delta, order)
            got = got + (0.0 if inputs.gate_bias is None else inputs.gate_bias)
            assert (got == bound.reference).all(), f"{order} sums of integers are not exact"
        ulp = 2.0 ** (np.frexp(bound.reference)[1] - form.precision)
        for wrong in (bound.reference + ulp, bound.reference - ulp):
            accepted = bound.permitted.contains(wrong) & (bound.reference != 0)
            assert not accepted.any(), f"one ulp of {form.name} off is accepted"


def test_exactness_ends_where_the_format_does() -> None:
    for top, exact in ((2.0**24 - 1, True), (2.0**24, False)):
        inputs = made("float32", np.array([[top, 1.0]]), np.ones((1, 2)))
        bound = bounds_of(inputs)
        assert bound.exact.all() == exact, f"{top} + 1 in float32"
        assert_permitted(bound, matmul(inputs.hidden, inputs.gate_weight, "forward"), f"{top} + 1")
    tiny = made("float32", np.array([[2.0**-70]]), np.array([[2.0**-70]]))
    assert not bounds_of(tiny).exact.any(), "a product below the normal range may be flushed"
    apart = made("float32", np.array([[1.0, 2.0**-30]]), np.ones((1, 2)))
    assert not bounds_of(apart).exact.any(), "1 + 2**-30 rounds"


def test_the_lowest_bit_is_that_of_the_rational_number() -> None:
    rng = np.random.default_rng(4)
    bits = rng.integers(0, 2**32, 3000, dtype=np.uint64).astype(np.uint32)
    others = np.append(rng.integers(0, 99, 50), [1e-45, 2.0**127]).astype(np.float32)
    values = np.concatenate([bits.view(np.float32), others])[:, None]
    with np.errstate(invalid="ignore"):  # signalling NaN among the bit patterns
        got, together = lowest_bit(values), lowest_bit(values.T)
    for value, bit in zip(values[:, 0].tolist(), got.tolist(), strict=True):
        if not np.isfinite(value):
            assert bit < -1000, f"{value} counts as exact"
        elif value == 0:
            assert bit > 1000, "a row of zeros rounds nowhere"
        else:
            odd = Fraction(value) / Fraction(2) ** bit
            assert odd.denominator == 1, f"{value} is no multiple of 2**{bit}"
            assert odd.numerator % 2 == 1, f"{value} has no bit at 2**{bit}"
    assert together[0] < -1000, "a row is as exact as its worst value"


# --- declared numerics ----------------------------------------------------------------------


def cut_to_tf32(values: Array) -> Array:
    """Drop the 13 low bits of the significand, as a tensor core reads float32."""
    return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize("size", [1, 8, 64, 257])
def test_tf32_products_are_right_only_where_declared(size: int) -> None:
    inputs = made("float32", *normal(np.random.default_rng(size), size))
    got = matmul(cut_to_tf32(inputs.hidden), cut_to_tf32(inputs.gate_weight), "torch")
    assert_permitted(bounds_of(inputs, Numerics(multiply="tf32")), got, "declared tf32")
    assert_refused(bounds_of(inputs), got, "undeclared tf32")


@pytest.mark.parametrize(("entry", "delta"), [(1.0, 2.0**-12), (0.75, 0.5 + 2.0**-11)])
def test_a_gate_and_its_delta_may_be_added_before_tf32_cuts_them(
    entry: float, delta: float
) -> None:
    # each of the two has no more bits than tf32 holds, and their sum has
    inputs = made("float32", [[1.0]], [[entry]], gate_delta=np.array([[delta]]))
    declared = Numerics(multiply="tf32")
    assert without_idle(CONFIG, inputs, declared) == declared, "what the sum loses is not seen"
    got = cut_to_tf32(inputs.gate_weight + inputs.gate_delta)
    assert got != entry + delta, "the sum loses nothing: this test saw nothing"
    assert_permitted(bounds_of(inputs, declared), got, "declared tf32 of the sum")
    assert_permitted(bounds_of(inputs, declared), np.array([[entry + delta]]), "tf32 of each")
    assert_refused(bounds_of(inputs, declared), np.array([[entry]]) * 0.99, "another number")
    assert_refused(bounds_of(inputs), got, "undeclared tf32")


def test_a_gate_and_its_delta_may_be_added_before_subnormals_are_flushed() -> None:
    entry, delta = 1.5 * FLOAT32.tiny, -FLOAT32.tiny
    inputs = made("float32", [[1 / FLOAT32.tiny]], [[entry]], gate_delta=np.array([[delta]]))
    declared = Numerics(flush_subnormals=True)
    assert without_idle(CONFIG, inputs, declared) == declared, "what the sum loses is not seen"
    assert_permitted(bounds_of(inputs, declared), np.zeros((1, 1)), "a flushed sum")
    assert_refused(bounds_of(inputs), np.zeros((1, 1)), "undeclared flushing")


def test_a_norm_that_is_exact_on_paper_is_cut_by_tf32_as_it_is_computed() -> None:
    # 2.5 * 0.75 / 6 = 5/16 has three bits; the float32 below it has 24, and tf32 cuts them
    hidden = [[3.5, 1.5, 2.5, 2.0, 1.5, 2.5, 1.0]]
    assert sum(x * x for x in hidden[0]) + 7 * 0.25 == 36.0
    gate = np.eye(1, 7, k=5)
    inputs = made("float32", hidden, gate, hidden_scale=np.full(7, 0.75))
    norm, declared = RmsNorm(eps=0.25), Numerics(multiply="tf32")
    below = np.nextafter(np.float32([[0.3125]]), np.float32(0.0))
    assert cut_to_tf32(below) < below, "tf32 holds it: this test saw nothing"
    bound = bounds_of(inputs, declared, input_norm=norm)
    assert_permitted(bound, below, "the norm computed in float32")
    assert_permitted(bound, cut_to_tf32(below), "declared tf32 of it")
    assert_refused(bound, cut_to_tf32(below) * 0.999, "another number")
    assert_refused(bounds_of(inputs, input_norm=norm), cut_to_tf32(below), "undeclared tf32")


@pytest.mark.parametrize("dtype", DTYPES)
def test_declaring_tf32_widens_nothing_that_tf32_holds_exactly(dtype: str) -> None:
    sizes = (4, 16) if dtype == "float32" else (8, 33)
    inputs = made(dtype, *normal(np.random.default_rng(5), sizes[0]))
    if dtype == "float32":
        inputs = made(dtype, cut_to_tf32(inputs.hidden), cut_to_tf32(inputs.gate_weight))
    plain, declared = bounds_of(inputs), bounds_of(inputs, Numerics(multiply="tf32"))
    assert (plain.permitted.hi == declared.permitted.hi).all(), f"tf32 widened {dtype} operands"


def test_flushed_subnormal_operands_are_right_only_where_declared() -> None:
    inputs = RouterInputs(
        hidden=np.array([[2.0**100, 2.0**-130, 1.0]], np.float32),
        gate_weight=np.array([[2.0**-128, 2.0**120, 1.0], [2.0**-120, 1.0, 0.0]], np.float32),
    )
    arrays = (inputs.hidden, inputs.gate_weight)
    got = matmul(*(np.where(np.abs(a) < FLOAT32.tiny, 0, a) for a in arrays), "forward")
    assert_permitted(bounds_of(inputs, Numerics(flush_subnormals=True)), got, "declared flushing")
    assert_refused(bounds_of(inputs), got, "undeclared flushing")


def test_products_that_underflow_may_be_flushed_one_by_one() -> None:
    # every operand is normal, and every product a subnormal; 64 of them sum to a normal number
    ones = np.ones((1, 64))
    inputs = made("float32", ones * 1.5 * 2.0**-64, ones * 2.0**-63)
    bound = bounds_of(inputs)
    assert bound.reference > 32 * FLOAT32.tiny, "the logit is not normal: this test saw nothing"
    assert_permitted(bound, np.zeros((1, 1)), "64 flushed products")
    assert_refused(bound, np.full((1, 1), -64 * FLOAT32.tiny), "the sign lost as well")


# --- the input norm -------------------------------------------------------------------------


def normed(inputs: RouterInputs, form: FloatFormat, **mistake: Any) -> Array:
    """Gemma 4's input norm with every intermediate stored in ``form``; the mean in float32."""
    eps = mistake.get("eps", 1e-6)
    x = inputs.hidden.astype(np.float32)
    count = mistake.get("count", x.shape[1])
    square = (x * x).sum(axis=1, keepdims=True, dtype=np.float32) / np.float32(count)
    x = form.round(x * (np.float32(1) / np.sqrt(square + np.float32(eps))))
    x = form.round(x * mistake.get("scale", inputs.hidden_scale))
    return form.round(x * form.round(inputs.hidden_size**-0.5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 5, 64, 1024])
def test_an_honest_input_norm_is_right_and_a_wrong_one_is_not(dtype: str, size: int) -> None:
    rng = np.random.default_rng(size)
    x, w = rng.normal(size=(3, size)) * 2e-3, rng.normal(size=(4, size)) + 2
    inputs = made(dtype, np.abs(x) + 1e-4, w, hidden_scale=1.5 + rng.random(size))
    axes = {"input_norm": RmsNorm(eps=1e-6), "logits_dtype": "input"}
    bound, form = bounds_of(inputs, **axes), INPUT_FORMATS[dtype]
    for order in ("forward", "torch"):
        got = form.round(matmul(normed(inputs, form), inputs.gate_weight, order))
        assert_permitted(bound, got, f"input norm stored in {dtype}")
    for mistake in ({"eps": 0.0}, {"count": size + 1}, {"scale": 1.0}):
        got = matmul(normed(inputs, FLOAT32, **mistake), inputs.gate_weight, "torch")
        if size <= 5 or "count" not in mistake:
            assert_refused(bound, got, f"an input norm with {mistake}")

"""Logit and score bounds against exact arithmetic: honest rounding inside, mistakes outside.

Logits are compared with ``fractions.Fraction``, scores with mpmath. Every honest variant must
lie within the judge's intervals, in whatever order and form it computes; each relaxation that
``Numerics`` declares must be needed by the variant that declares it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

from moe_routing.conformance.judge import Answer, Bounds, Interval, judge, may_select
from moe_routing.conformance.judge.exactness import lowest_bit
from moe_routing.conformance.judge.logits import LogitBounds
from moe_routing.conformance.judge.scores import (
    competing_bounds,
    operated_bounds,
    score_bounds,
    softmax_bounds,
)
from moe_routing.conformance.judge.shared_experts import contribution_bounds
from moe_routing.implementations import Numerics
from moe_routing.reference import (
    RmsNorm,
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    SharedExpertInputs,
    route,
    shared_contribution,
)
from moe_routing.reference.formats import FLOAT32, INPUT_FORMATS, FloatFormat

torch = pytest.importorskip("torch")

DTYPES = ("float32", "bfloat16", "float16")
ORDERS = ("forward", "reverse", "pairwise", "shuffled", "torch", "numpy")
PLAIN = Numerics()
U = FLOAT32.unit_roundoff
Array = np.ndarray


# --- logits: honest accumulation and storage ------------------------------------------------


def normal(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    return rng.normal(size=(3, size)), rng.normal(size=(4, size))


def cancelling(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """Products in pairs that nearly annul each other."""
    half = max(1, size // 2)
    x, w = rng.normal(size=(3, half)), rng.normal(size=(4, half))
    return np.hstack([x, x]), np.hstack([w, -w * (1 + rng.normal(size=w.shape) * 0.01)])


def uneven(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """Magnitudes over sixteen binades, and many zeros."""
    x, w = normal(rng, size)
    x *= 2.0 ** rng.integers(-6, 3, x.shape) * (rng.random(x.shape) < 0.5)
    return x, w * 2.0 ** rng.integers(-5, 3, w.shape)


def made(dtype: str, hidden: Array, gate: Array, **arrays: Array) -> RouterInputs:
    """Inputs of these values, rounded to ``dtype``."""
    form = INPUT_FORMATS[dtype]
    arrays = {"hidden": hidden, "gate_weight": gate, **arrays}
    rounded = {name: form.round(value).astype(np.float32) for name, value in arrays.items()}
    return RouterInputs(dtype=dtype, **rounded)


def bounds_of(inputs: RouterInputs, numerics: Numerics = PLAIN, **axes: Any) -> LogitBounds:
    config = RouterConfig(num_experts=inputs.num_experts, top_k=1, **axes)
    return Bounds(config, inputs, numerics).logits


def exact_logits(inputs: RouterInputs) -> list[list[Fraction]]:
    """The logits in rational arithmetic."""
    fractions = {
        name: [[Fraction(float(value)) for value in row] for row in np.atleast_2d(array)]
        for name, array in inputs.arrays().items()
    }
    gate = fractions["gate_weight"]
    if "gate_delta" in fractions:
        rows = zip(gate, fractions["gate_delta"], strict=True)
        gate = [[a + b for a, b in zip(*row, strict=True)] for row in rows]
    bias = fractions.get("gate_bias", [[Fraction(0)] * len(gate)])[0]
    experts = list(zip(gate, bias, strict=True))
    return [
        [sum((a * b for a, b in zip(x, w, strict=True)), c) for w, c in experts]
        for x in fractions["hidden"]
    ]


def matmul(x: Array, w: Array, order: str) -> Array:
    """``x w^T`` of float32 arrays, accumulated in float32 in the given order."""
    x, w = x.astype(np.float32), w.astype(np.float32)
    if order == "torch":
        return torch.nn.functional.linear(torch.tensor(x), torch.tensor(w)).numpy()
    if order == "numpy":
        return x @ w.T
    products = [x[:, None, h] * w[None, :, h] for h in range(x.shape[1])]
    if order == "pairwise":
        while len(products) > 1:
            pairs = itertools.zip_longest(products[::2], products[1::2])
            products = [a if b is None else a + b for a, b in pairs]
        return products[0]
    if order == "reverse":
        products.reverse()
    if order == "shuffled":
        np.random.default_rng(0).shuffle(products)
    total = np.zeros_like(products[0])
    for product in products:
        total = total + product
    return total


def assert_permitted(bound: LogitBounds, got: Array, what: str) -> None:
    permitted = bound.permitted
    inside = permitted.contains(np.asarray(got, dtype=np.float64))
    if not inside.all():
        t, e = np.argwhere(~inside)[0]
        radius = permitted.hi[t, e] - bound.reference[t, e]
        error = abs(float(got[t, e]) - bound.reference[t, e])
        pytest.fail(
            f"{what}: logits[{t}, {e}]={float(got[t, e])!r}, but should be in "
            f"[{permitted.lo[t, e]!r}, {permitted.hi[t, e]!r}]: {error / radius:.3g} times over"
        )


def assert_true_logits_permitted(bound: LogitBounds, inputs: RouterInputs) -> None:
    truths = itertools.chain.from_iterable(exact_logits(inputs))
    ends = zip(bound.permitted.lo.flat, bound.permitted.hi.flat, strict=True)
    for truth, (lo, hi) in zip(truths, ends, strict=True):
        assert Fraction(lo) <= truth <= Fraction(hi), f"the true logit {float(truth)} is refused"


def assert_refused(bound: LogitBounds, got: Array, what: str) -> None:
    inside = bound.permitted.contains(np.asarray(got, dtype=np.float64))
    assert not inside.all(), f"{what} is accepted everywhere"


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


TERMS = [("gate_delta",), ("gate_bias",), ("gate_delta", "gate_bias")]


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


# --- logits: exact cases --------------------------------------------------------------------


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


# --- logits: declared numerics --------------------------------------------------------------


def cut_to_tf32(values: Array) -> Array:
    """Drop the 13 low bits of the significand, as a tensor core reads float32."""
    return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize("size", [1, 8, 64, 257])
def test_tf32_products_are_right_only_where_declared(size: int) -> None:
    inputs = made("float32", *normal(np.random.default_rng(size), size))
    got = matmul(cut_to_tf32(inputs.hidden), cut_to_tf32(inputs.gate_weight), "torch")
    assert_permitted(bounds_of(inputs, Numerics(multiply="tf32")), got, "declared tf32")
    assert_refused(bounds_of(inputs), got, "undeclared tf32")


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


# --- logits: the input norm -----------------------------------------------------------------


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


# --- scores ---------------------------------------------------------------------------------


def truly(function: Callable[[Any], Any], values: Array) -> Array:
    """``function`` of each value in 50 digits, rounded to float64 at the end."""
    with mpmath.workdps(50):
        flat = [float(function(mpmath.mpf(float(value)))) for value in values.ravel()]
    return np.array(flat).reshape(values.shape)


def true_softmax(rows: Array) -> Array:
    with mpmath.workdps(50):
        result = []
        for row in rows.astype(np.float64).tolist():
            numerators = [mpmath.exp(value) for value in row]
            total = mpmath.fsum(numerators)
            result.append([float(value / total) for value in numerators])
    return np.array(result)


ONE, LOG2E = np.float32(1), np.float32(np.log2(np.e))


def exp2_softmax(z: Array) -> Array:
    """As flash kernels do: logits times log2(e), and the shift, before one exp2."""
    e = np.exp2(z * LOG2E - z.max(axis=1, keepdims=True) * LOG2E)
    return e * (ONE / e.sum(axis=1, keepdims=True))


def logsumexp_softmax(z: Array) -> Array:
    z = torch.tensor(z)
    return torch.exp(z - torch.logsumexp(z, dim=1, keepdim=True)).numpy()


def exp2_logsumexp_softmax(z: Array) -> Array:
    """The norm from natural logarithms, the quotient in powers of 2."""
    norm = torch.logsumexp(torch.tensor(z), dim=1, keepdim=True).numpy()
    return np.exp2(z * LOG2E - norm * LOG2E)


def online_softmax(z: Array) -> Array:
    """As chunked kernels do: a running maximum, and a running sum that each new one rescales."""
    most, total = z[:, :1], np.ones((len(z), 1), np.float32)
    for e in range(1, z.shape[1]):
        new = np.maximum(most, z[:, e : e + 1])
        total = total * np.exp(most - new) + np.exp(z[:, e : e + 1] - new)
        most = new
    return np.exp(z - most) / total


SOFTMAXES: dict[str, Callable[[Array], Array]] = {
    "torch": lambda z: torch.softmax(torch.tensor(z), dim=1).numpy(),
    "log_softmax": lambda z: torch.log_softmax(torch.tensor(z), dim=1).exp().numpy(),
    "exp2": exp2_softmax,
    "logsumexp": logsumexp_softmax,
    "exp2 of logsumexp": exp2_logsumexp_softmax,
    "online": online_softmax,
}


def spread_rows(width: int, shift: float, experts: int, seed: int = 0) -> Array:
    """Rows whose least logit is ``width`` below the greatest, which is ``shift``."""
    rng = np.random.default_rng(seed)
    z = shift - rng.uniform(0, width, (60, experts))
    z[:, 0], z[:, -1] = shift, shift - width
    z[::2].sort(axis=1)  # every second row ascends: a running maximum changes with each expert
    return z.astype(np.float32)


SPREADS = [(80, 40.0, 8), (80, 0.0, 8), (80, -5.0, 2), (5, 3.0, 64), (1, 80.0, 8), (8, 9.0, 2)]


@pytest.mark.parametrize("form", SOFTMAXES)
@pytest.mark.parametrize(("width", "shift", "experts"), SPREADS)
def test_honest_softmaxes_have_the_numerators_that_the_judge_permits(
    form: str, width: float, shift: float, experts: int
) -> None:
    z = spread_rows(int(width), shift, experts)
    bound = softmax_bounds(Interval.point(z.astype(np.float64)), FLOAT32)
    got = SOFTMAXES[form](z).astype(np.float64)
    # one common denominator must explain the row
    least = (got / np.maximum(bound.numerators.hi, 1e-300)).max(axis=1)
    most = (got / np.maximum(bound.numerators.lo, 1e-300)).min(axis=1)
    assert (least <= most).all(), (
        f"{form}: no denominator explains row {int(np.argmax(least > most))}"
    )


@pytest.mark.parametrize("form", SOFTMAXES)
def test_honest_softmaxes_are_within_the_bounds_of_their_quotients(form: str) -> None:
    for width, shift, experts in SPREADS:
        z = spread_rows(int(width), shift, experts)
        bound = softmax_bounds(Interval.point(z.astype(np.float64)), FLOAT32).scores
        truth = true_softmax(z)
        assert bound.contains(truth).all(), "the true softmax is refused"
        got = SOFTMAXES[form](z).astype(np.float64)
        if not bound.contains(got).all():
            t, e = np.argwhere(~bound.contains(got))[0]
            pytest.fail(
                f"{form}: softmax({z[t].tolist()})[{e}]={got[t, e]!r}, but should be in "
                f"[{bound.lo[t, e]!r}, {bound.hi[t, e]!r}], {experts} experts"
            )


def test_a_softmax_of_far_apart_logits_errs_by_more_than_a_few_roundings() -> None:
    z = spread_rows(80, 40.0, 8)
    for form in ("torch", "exp2"):
        errors = np.abs(SOFTMAXES[form](z) / true_softmax(z) - 1) / U
        assert errors.max() > 30, f"{form} errs by {errors.max():.3g} u only: nothing to permit"


def test_a_softmax_bound_is_tight_enough_to_refuse_single_wrong_steps() -> None:
    z = spread_rows(4, 2.0, 8)
    bound = softmax_bounds(Interval.point(z.astype(np.float64)), FLOAT32).scores
    truth = true_softmax(z)
    halves = torch.softmax(torch.tensor(z).bfloat16(), dim=1).double().numpy()
    for what, wrong in (
        ("softmax of bfloat16", halves),
        ("a softmax 1e-5 too large", truth * (1 + 1e-5)),
        ("a softmax without its last expert", truth / (1 - truth[:, -1:])),
    ):
        accepted = bound.contains(wrong).mean()
        assert accepted < 0.05, f"{what} is accepted for {accepted:.0%} of its entries"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_softmax_stored_in_sixteen_bits_at_every_step_is_within_its_bounds(dtype: str) -> None:
    form = INPUT_FORMATS[dtype]
    for width, shift, experts in SPREADS:
        z = form.round(spread_rows(int(width), shift, experts))
        bound = softmax_bounds(Interval.point(z), form).scores
        e = form.round(np.exp(form.round(z - z.max(axis=1, keepdims=True))))
        total = np.zeros(len(z))
        for column in e.T:
            total = form.round(total + column)
        for got in (form.round(e / total[:, None]), form.round(e * form.round(1 / total)[:, None])):
            assert bound.contains(got).all(), f"{dtype} softmax of {experts} experts is refused"


def test_minus_infinity_scores_zero_and_rows_of_it_raise_nothing() -> None:
    z = np.array([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, -np.inf]])
    bound = softmax_bounds(Interval.point(z), FLOAT32)
    assert bound.scores.hi[0, 1] == bound.numerators.hi[0, 1] == 0.0, "exp(-inf) is exactly 0"
    assert (bound.scores.lo[1] == 0).all(), "a row of -inf has no lower bound"
    assert (bound.scores.hi[1] >= 1).all(), "a row of -inf has no upper bound"


def tanh_sigmoid(z: Array) -> Array:
    return (0.5 * torch.tanh(torch.tensor(z) / 2) + 0.5).numpy()


def exp_sigmoid(z: Array) -> Array:
    return ONE / (ONE + np.exp(-z))


def exp2_sigmoid(z: Array) -> Array:
    return ONE / (ONE + np.exp2(-z * LOG2E))


def two_sided_sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, ONE, e) / (ONE + e)


SIGMOIDS: dict[str, Callable[[Array], Array]] = {
    "torch": lambda z: torch.sigmoid(torch.tensor(z)).numpy(),
    "1/(1+exp(-z))": exp_sigmoid,
    "exp2": exp2_sigmoid,
    "two-sided": two_sided_sigmoid,
    "exp(logsigmoid)": lambda z: torch.nn.functional.logsigmoid(torch.tensor(z)).exp().numpy(),
}

SOFTPLUSES: dict[str, Callable[[Array], Array]] = {
    "torch": lambda z: torch.nn.functional.softplus(torch.tensor(z)).sqrt().numpy(),
    "logaddexp": lambda z: np.sqrt(np.logaddexp(np.float32(0), z)),
    "two-sided": lambda z: np.sqrt(np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))),
    "-logsigmoid": lambda z: torch.sqrt(-torch.nn.functional.logsigmoid(torch.tensor(-z))).numpy(),
}


def plain_softplus(z: Array) -> Array:
    """``log(1 + exp(z))`` as written, with a threshold for large z."""
    return np.sqrt(np.where(z > 20, z, np.log(ONE + np.exp(np.minimum(z, 80)))))


POINTS = np.concatenate(
    [np.linspace(-110, 100, 400), np.linspace(-18, 18, 400), [0.0, -0.0, 1e-30, -1e-7]]
).astype(np.float32)[:, None]


def of_points(score: str, numerics: Numerics = PLAIN) -> Interval:
    config = RouterConfig(num_experts=1, top_k=1, score=score)
    return score_bounds(config, Interval.point(POINTS.astype(np.float64)), FLOAT32, numerics).scores


def first_outside(bound: Interval, got: Array) -> str:
    i = int(np.argmax(~bound.contains(got.astype(np.float64))[:, 0]))
    return f"at z={POINTS[i, 0]!r}: {got[i, 0]!r} not in [{bound.lo[i, 0]!r}, {bound.hi[i, 0]!r}]"


@pytest.mark.parametrize(
    ("score", "form"),
    [("sigmoid", form) for form in SIGMOIDS] + [("sqrtsoftplus", form) for form in SOFTPLUSES],
)
def test_honest_sigmoids_and_softpluses_are_right_undeclared(score: str, form: str) -> None:
    bound = of_points(score)
    with np.errstate(over="ignore"):
        got = (SIGMOIDS if score == "sigmoid" else SOFTPLUSES)[form](POINTS)
    assert bound.contains(got.astype(np.float64)).all(), f"{form} {first_outside(bound, got)}"


@pytest.mark.parametrize("ulps", [-2, 2])
def test_elementary_functions_that_are_two_ulps_off_are_right(ulps: int) -> None:
    # what the maths libraries document; none at hand is that far off
    def off(values: Array) -> Array:
        values = np.asarray(values, np.float32)
        return np.where(values > 2.0**-120, (values.view(np.int32) + ulps).view(np.float32), values)

    with np.errstate(over="ignore"):
        e = off(np.exp(-np.abs(POINTS)))
        sigmoid = np.where(POINTS >= 0, ONE, e) / (ONE + e)
        root = off(np.sqrt(np.maximum(POINTS, 0) + off(np.log1p(e))))
    for score, got in (("sigmoid", sigmoid), ("sqrtsoftplus", root)):
        bound = of_points(score)
        assert bound.contains(got.astype(np.float64)).all(), f"{score} {first_outside(bound, got)}"
    for width, shift, experts in SPREADS:
        z = spread_rows(int(width), shift, experts)
        e = off(np.exp(z - z.max(axis=1, keepdims=True)))
        got = e * off(ONE / e.sum(axis=1, keepdims=True))
        bound = softmax_bounds(Interval.point(z.astype(np.float64)), FLOAT32).scores
        assert bound.contains(got.astype(np.float64)).all(), f"softmax of {experts} experts"


def test_true_sigmoids_and_softpluses_are_within_narrow_bounds() -> None:
    truths = {
        "sigmoid": truly(lambda z: 1 / (1 + mpmath.exp(-z)), POINTS),
        "sqrtsoftplus": truly(lambda z: mpmath.sqrt(mpmath.log1p(mpmath.exp(z))), POINTS),
    }
    for score, truth in truths.items():
        bound = of_points(score)
        assert bound.contains(truth).all(), f"{score} {first_outside(bound, truth)}"
        large = truth[:, 0] > 1e-15  # below, the smallest normal number shows under the root
        width = ((bound.hi - bound.lo) / truth)[large, 0] / U
        permitted = 2 * (4 * np.abs(POINTS[large, 0]) + 20)
        assert (width <= permitted).all(), f"{score} may err by {width.max():.3g} u"


@pytest.mark.parametrize(
    ("score", "form", "numerics"),
    [
        ("sigmoid", tanh_sigmoid, Numerics(sigmoid="absolute")),
        ("sqrtsoftplus", plain_softplus, Numerics(softplus="absolute")),
    ],
)
def test_forms_with_an_absolute_error_are_right_only_where_declared(
    score: str, form: Callable[[Array], Array], numerics: Numerics
) -> None:
    got, declared = form(POINTS), of_points(score, numerics)
    assert declared.contains(got.astype(np.float64)).all(), first_outside(declared, got)
    refused = ~of_points(score).contains(got.astype(np.float64))[:, 0]
    assert refused.any(), "right undeclared: the declaration is not needed"
    assert POINTS[refused].max() < 0, "the absolute error shows only where scores are small"


def test_a_softcap_and_a_multiplier_keep_honest_logits_within_bounds() -> None:
    for cap, factor in itertools.product((None, 1.0, 30.0), (1.0, 0.1768, -1.0, 0.0)):
        config = RouterConfig(num_experts=1, top_k=1, logit_softcap=cap, logit_multiplier=factor)
        bound = operated_bounds(config, Interval.point(POINTS.astype(np.float64)), FLOAT32)
        got = torch.tensor(POINTS) * factor
        if cap is not None:
            got = torch.tanh(got / cap) * cap
        assert bound.contains(got.double().numpy()).all(), f"softcap={cap} multiplier={factor}"
        wide = Interval(POINTS.astype(np.float64) - 1, POINTS.astype(np.float64) + 1)
        assert (operated_bounds(config, wide, FLOAT32).lo <= bound.lo).all(), "not monotone"


# --- what competes --------------------------------------------------------------------------


def competing(z: Array, numerics: Numerics = PLAIN, bias: Array | None = None) -> Interval:
    score = "softmax" if bias is None else "sigmoid"
    config = RouterConfig(num_experts=z.shape[1], top_k=1, score=score)
    scores = score_bounds(config, Interval.point(z.astype(np.float64)), FLOAT32, numerics)
    return competing_bounds(scores, bias, FLOAT32, numerics)


def top_mask(values: Array, top_k: int) -> Array:
    chosen = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-values, axis=1)[:, :top_k], True, axis=1)
    return chosen


def test_an_expert_index_packed_into_the_score_is_right_only_where_declared() -> None:
    # nine index bits at E = 512 leave fifteen significand bits to compare
    rng = np.random.default_rng(6)
    steps = rng.random((200, 700)).argsort(axis=1)[:, :512]
    z = (2.0 + steps * 2.0**-17).astype(np.float32)
    bits = torch.softmax(torch.tensor(z), dim=1).numpy().view(np.uint32)
    packed = (bits & np.uint32(0xFFFFFE00)) | np.arange(512, dtype=np.uint32)
    chosen = top_mask(packed.astype(np.float64), 8)
    declared = may_select(competing(z, Numerics(select_bits=15)), chosen, None, FLOAT32)
    assert declared.all(), f"declared, but refused for {(~declared).sum()} of 200 tokens"
    refused = ~may_select(competing(z), chosen, None, FLOAT32)
    assert refused.mean() > 0.5, f"undeclared, and refused for only {refused.sum()} of 200"
    honest = top_mask(bits.astype(np.float64), 8)
    assert may_select(competing(z), honest, None, FLOAT32).all(), "unpacked scores are refused"


def test_quotients_would_hide_what_the_numerators_show() -> None:
    # the denominator's own (E + c) roundings are common to the row and must not be slack
    z = np.full((1, 512), 1.0)
    z[0, 1] += 2.0**-18
    chosen = np.arange(512)[None] == 0
    point = softmax_bounds(Interval.point(z), FLOAT32)
    assert not may_select(point.numerators, chosen, None, FLOAT32).any(), "the lesser one wins"
    assert may_select(point.scores, chosen, None, FLOAT32).all(), "quotients hide nothing here"


@pytest.mark.parametrize("offset", [0.0, 7.0, 34.5])
def test_the_sum_with_the_selection_bias_is_one_float32_rounding(offset: float) -> None:
    rng = np.random.default_rng(7)
    z = rng.normal(size=(300, 64)).astype(np.float32)
    bias = (offset + rng.normal(size=64) * 2.0**-10).astype(np.float32)
    scores = torch.sigmoid(torch.tensor(z)).numpy()
    bound = competing(z, bias=bias)
    assert bound.contains((scores + bias).astype(np.float64)).all(), "an honest float32 sum"
    assert bound.contains(scores.astype(np.float64) + bias).all(), "a sum in float64"
    rounded = torch.tensor(bias).bfloat16().float().numpy()
    right = may_select(bound, top_mask(scores + bias, 8), None, FLOAT32)
    wrong = may_select(bound, top_mask(scores + rounded, 8), None, FLOAT32)
    assert right.all(), "an honest selection is refused"
    assert offset == 0.0 or (~wrong).mean() > 0.01, "a bias rounded to bfloat16 is never refused"


# --- shared experts -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gated", [False, True])
def test_shared_experts_in_eager_torch_are_within_bounds_and_mistakes_are_not(
    dtype: str, gated: bool
) -> None:
    rng, form = np.random.default_rng(8), INPUT_FORMATS[dtype]
    shapes = {"hidden": (5, 33), "gate_proj": (16, 33), "up_proj": (16, 33), "down_proj": (33, 16)}
    shapes |= {"gate": (1, 33)} if gated else {}
    arrays = {name: rng.normal(size=shape) / 4 for name, shape in shapes.items()}
    arrays = {name: form.round(array).astype(np.float32) for name, array in arrays.items()}
    inputs = SharedExpertInputs(dtype=dtype, **arrays)
    config = SharedExpertConfig(kind="singular", gated=gated)
    bound = contribution_bounds(config, inputs)
    given = {name: torch.tensor(array).to(getattr(torch, dtype)) for name, array in arrays.items()}
    functional = torch.nn.functional
    x = given["hidden"]
    inner = functional.silu(functional.linear(x, given["gate_proj"]))
    output = functional.linear(inner * functional.linear(x, given["up_proj"]), given["down_proj"])
    opened = functional.linear(x, given["gate"]).sigmoid() if gated else 1.0
    got = (output * opened).double().numpy()
    assert bound.contains(got).all(), f"{dtype} shared expert, gated={gated}"
    assert bound.contains(shared_contribution(config, inputs)).all(), "the reference is refused"
    assert not bound.contains(2.0 * got).all(), "a contribution counted twice is accepted"
    if gated:
        twice = (output * opened * opened).double().numpy()
        assert not bound.contains(twice).all(), "a gate applied twice is accepted"
        assert not bound.contains(output.double().numpy()).all(), "a skipped gate is accepted"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_shared_experts_may_be_stored_after_every_stage(dtype: str) -> None:
    # one channel throughout, so that no sum over channels drowns the rounding of a store
    rng, form = np.random.default_rng(9), INPUT_FORMATS[dtype]
    shapes = {"hidden": (400, 1), "gate_proj": (1, 1), "up_proj": (1, 1), "down_proj": (1, 1)}
    arrays = {name: form.round(rng.uniform(1, 2, shape)) for name, shape in shapes.items()}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    inputs, config = SharedExpertInputs(dtype=dtype, **arrays), SharedExpertConfig(kind="singular")
    bound, r = contribution_bounds(config, inputs), form.round
    gate, up = (r(inputs.hidden * arrays[name]) for name in ("gate_proj", "up_proj"))
    inner = r(r(gate * r(1 / (1 + np.exp(-gate)))) * up)
    got = r(inner * arrays["down_proj"])
    assert bound.contains(got).all(), f"{dtype} stored after every stage"
    off = np.abs(got / shared_contribution(config, inputs) - 1).max() / form.unit_roundoff
    assert off > 2, f"the stores add up to {off:.3g} u only: this test saw nothing"
    assert not bound.contains(got * (1 + 40 * form.unit_roundoff)).any(), "40 u off is accepted"


def test_shared_experts_accumulate_in_float32() -> None:
    # sums that cancel: their rounding is far above the result's own
    rng, size = np.random.default_rng(10), 2048
    x = np.repeat(rng.normal(size=(8, size // 2)), 2, axis=1).astype(np.float32)
    gate = np.repeat(rng.normal(size=(4, size // 2)), 2, axis=1) * np.tile([1.0, -1.0], size // 2)
    gate = (gate * (1 + rng.normal(size=gate.shape) * 1e-6)).astype(np.float32)
    down = rng.normal(size=(size, 4)).astype(np.float32)
    inputs = SharedExpertInputs(hidden=x, gate_proj=gate, up_proj=gate, down_proj=down)
    bound = contribution_bounds(SharedExpertConfig(kind="singular"), inputs)
    for order in ("forward", "shuffled", "torch"):
        up = matmul(x, gate, order)
        inner = up * (ONE / (ONE + np.exp(-up))) * up
        got = matmul(inner, down, order).astype(np.float64)
        assert bound.contains(got).all(), f"{order} sums"

"""Gates and their logits: hostile numbers, honest sums in any order, exact values as fractions."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.logits import LogitBounds
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.formats import INPUT_FORMATS

torch = pytest.importorskip("torch")

Array = np.ndarray
PLAIN = Numerics()
DTYPES = ("float32", "bfloat16", "float16")
ORDERS = ("forward", "reverse", "pairwise", "shuffled", "torch", "numpy")
TERMS = [("gate_delta",), ("gate_bias",), ("gate_delta", "gate_bias")]


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

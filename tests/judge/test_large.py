"""Large calls: what the judge saves on them changes no verdict, and no bound but as derived."""

from __future__ import annotations

import numpy as np
import pytest

from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge import logits as logits_module
from moe_routing.conformance.judge.exactness import Exactness
from moe_routing.conformance.judge.logits import LogitBounds
from moe_routing.implementations import Numerics
from moe_routing.reference import RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT32

T, E, H = 17, 33, 8192


def call(kind: str, **arrays: np.ndarray) -> RouterInputs:
    """Return inputs of normal numbers, of integers, or of integers with a few odd rows."""
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((T, H)), rng.standard_normal((E, H)) / np.sqrt(H)
    if kind != "normal":
        x, w = rng.integers(-8, 9, x.shape), rng.integers(-8, 9, w.shape)
    if kind == "mixed":  # the first columns of these rows look exact, too
        x, w = x.astype(np.float64), w.astype(np.float64)
        x[[2, 5], -1], w[7, H // 2] = 2.0**-20 / 3, 1e-30
    return RouterInputs(hidden=x.astype(np.float32), gate_weight=w.astype(np.float32), **arrays)


def bounds_of(
    monkeypatch: pytest.MonkeyPatch, inputs: RouterInputs, *, large: bool
) -> tuple[LogitBounds, np.ndarray]:
    """Return the bounds, taken as those of a large call or of a small one, and the radius."""
    monkeypatch.setattr(logits_module, "_LARGE", 0 if large else np.inf)
    config = RouterConfig(num_experts=E, top_k=2)
    bounds = Bounds(config, inputs, Numerics()).logits
    return bounds, bounds.permitted.hi - bounds.permitted.lo


@pytest.mark.parametrize("terms", ["gate", "gate and delta", "gate and bias"])
def test_a_magnitude_summed_in_float32_widens_by_no_more_than_derived(
    monkeypatch: pytest.MonkeyPatch, terms: str
) -> None:
    rng = np.random.default_rng(8)
    arrays = {
        "gate": {},
        "gate and delta": {"gate_delta": rng.standard_normal((E, H)).astype(np.float32)},
        "gate and bias": {"gate_bias": rng.standard_normal(E).astype(np.float32)},
    }
    inputs = call("normal", **arrays[terms])
    small, narrow = bounds_of(monkeypatch, inputs, large=False)
    large, wide = bounds_of(monkeypatch, inputs, large=True)
    assert (large.permitted.lo <= small.permitted.lo).all()
    assert (large.permitted.hi >= small.permitted.hi).all()
    gamma = H * FLOAT32.unit_roundoff / (1 - H * FLOAT32.unit_roundoff)
    assert (wide > narrow).any(), "nothing was summed in float32"
    assert (wide <= narrow * (1 + 3 * gamma + 9 * gamma**2)).all()
    assert not large.exact.any()


@pytest.mark.parametrize("kind", ["integers", "mixed"])
def test_where_a_logit_is_exact_the_bounds_are_those_of_a_small_call(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    inputs = call(kind)
    small, narrow = bounds_of(monkeypatch, inputs, large=False)
    large, wide = bounds_of(monkeypatch, inputs, large=True)
    assert np.array_equal(narrow, wide)
    assert np.array_equal(small.exact, large.exact)
    tokens = np.isin(np.arange(T), [2, 5]) & (kind == "mixed")
    experts = (np.arange(E) == 7) & (kind == "mixed")
    assert np.array_equal(large.exact, ~(tokens[:, None] | experts)), "by the rows read to the end"


def test_rows_that_cannot_be_exact_by_their_first_columns_are_not_read_to_the_end() -> None:
    inputs = call("normal")
    magnitude = np.abs(inputs.hidden) @ np.abs(inputs.gate_weight).T
    assert Exactness.of(inputs, magnitude, None).quantum is None
    assert not Exactness.of(inputs, magnitude, None).within(FLOAT32).any()


def test_the_magnitude_is_rounded_up_from_below_the_normal_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Products that float32 cannot hold count for its smallest normal number each."""
    inputs = RouterInputs(
        hidden=np.full((T, H), 1e-30, np.float32) * np.linspace(1, 1.5, H, dtype=np.float32),
        gate_weight=np.full((E, H), 3e-15, np.float32),
    )
    small, _ = bounds_of(monkeypatch, inputs, large=False)
    large, _ = bounds_of(monkeypatch, inputs, large=True)
    assert (large.permitted.hi >= small.permitted.hi).all()
    assert (large.permitted.lo <= small.permitted.lo).all()

"""Bounds of the shared experts' contribution: eager torch inside, mistakes outside."""

from __future__ import annotations

import numpy as np
import pytest
from gates import DTYPES, matmul
from score_forms import ONE

from moe_routing.conformance.judge.shared_experts import contribution_bounds
from moe_routing.reference import SharedExpertConfig, SharedExpertInputs, shared_contribution
from moe_routing.reference.formats import INPUT_FORMATS

torch = pytest.importorskip("torch")


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

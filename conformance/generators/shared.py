"""Shared-expert calls: small SwiGLU MLPs made from a seed, with or without a gate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.generators.construct import with_inputs
from moe_routing.conformance.generators.reducer import Reduction, subsets
from moe_routing.reference import SharedExpertConfig, SharedExpertInputs
from moe_routing.reference.shared_experts import SharedKind


def make_shared_case(
    *,
    kind: SharedKind,
    gated: bool,
    dtype: str,
    tokens: int,
    hidden: int,
    width: int,
    seed: int,
    zero_gate: bool = False,
) -> SharedCase:
    """Return a call with eighths as values, exact in every dtype; ``zero_gate``: logits of 0."""
    rng = np.random.default_rng(seed)

    def eighths(*shape: int) -> npt.NDArray[np.float32]:
        return (rng.integers(-12, 13, shape) / 8.0).astype(np.float32)

    inputs = SharedExpertInputs(
        hidden=eighths(tokens, hidden),
        gate_proj=eighths(width, hidden),
        up_proj=eighths(width, hidden),
        down_proj=eighths(hidden, width),
        gate=None
        if not gated
        else np.zeros((1, hidden), np.float32)
        if zero_gate
        else eighths(1, hidden),
        dtype=dtype,
    )
    return SharedCase(
        config=SharedExpertConfig(kind=kind, gated=gated), inputs=inputs, recipe="eighths"
    )


def _rows(case: SharedCase) -> Iterator[SharedCase]:
    """Yield the case with fewer tokens."""
    for kept in subsets(len(case.inputs.hidden)):
        yield with_inputs(case, hidden=case.inputs.hidden[kept])


def _columns(case: SharedCase) -> Iterator[SharedCase]:
    """Yield the case with fewer rows of the MLP, then with fewer hidden columns."""
    inputs = case.inputs
    for kept in subsets(len(inputs.up_proj)):
        fewer = {"gate_proj": inputs.gate_proj[kept], "up_proj": inputs.up_proj[kept]}
        yield with_inputs(case, **fewer, down_proj=inputs.down_proj[:, kept])
    for kept in subsets(inputs.hidden.shape[1]):
        wide = ("hidden", "gate_proj", "up_proj", "gate")
        fewer = {n: array[:, kept] for n, array in inputs.arrays().items() if n in wide}
        yield with_inputs(case, **fewer, down_proj=inputs.down_proj[kept])


SHARED_REDUCTIONS: tuple[Reduction, ...] = (_rows, _columns)
"""The reductions of a shared-expert case, in the order in which they are tried."""

"""Shared-expert calls from a seed: a small SwiGLU MLP, with or without a gate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.cases.case import SharedCase
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

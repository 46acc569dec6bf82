"""Small calls of experts for the tests of adapters, and their comparison with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.reference import ExpertsConfig, ExpertsInputs, experts

E, T, K = 4, 5, 2


def small(*shape: int) -> Any:
    """Eighths, at most 1 in size: exact in 16 bits, and small enough that sums are."""
    rng = np.random.default_rng(sum(shape))
    return (rng.integers(-8, 9, shape) / 8.0).astype(np.float32)


def experts_call(
    backend: Any, activation: str, absent: bool
) -> tuple[ExpertsConfig, ExpertsInputs]:
    computes, dtype = backend.capabilities().computes, backend.capabilities().dtypes[0]
    h, f = 2 * computes.hidden_multiple_of, 3 * computes.width_multiple_of
    config = ExpertsConfig(
        num_experts=E, gated=computes.gated[0], activation=activation, limit=0.5, alpha=1.5
    )
    ids = np.array([[0, 1], [1, 3], [3, 0], [1, 0], [0, 3]])  # expert 2 has no token
    weights = np.abs(small(T, K)) + 0.125
    if absent:
        ids[:, 1], weights[:, 1] = -1, 0.0
    arrays = {"up_weight": small(E, f, h), "down_weight": small(E, h, f)}
    if config.gated:
        arrays["gate_weight"] = small(E, f, h)[::-1]
    if True in computes.biases:
        arrays |= {"up_bias": small(E, f), "down_bias": small(E, h)}
        arrays |= {"gate_bias": small(E, f)} if config.gated else {}
    inputs = ExpertsInputs(
        hidden=small(T, h), expert_ids=ids, weights=weights, dtype=dtype, **arrays
    )
    return config, inputs


def check_experts(backend: Any) -> None:
    """Compare every activation, with and without absent routes, with the reference."""
    computes = backend.capabilities().computes
    for activation in computes.activations:
        for absent in computes.absent:
            config, inputs = experts_call(backend, activation, absent)
            near = 1e-5 if inputs.dtype == "float32" else 2e-2
            found = backend.experts(config, inputs).float().numpy()
            np.testing.assert_allclose(found, experts(config, inputs), rtol=near, atol=near)

"""Near misses of the events of whole layers: all is there but the one thing."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.conformance.calls.layer import LayerCase
from moe_routing.reference import (
    ExpertsConfig,
    LayerConfig,
    LayerInputs,
    RouterConfig,
    SharedExpertConfig,
)

T, E, H, F = 3, 4, 4, 4


def composed(
    *,
    shared: str = "singular",
    gated: bool = False,
    tokens: int = T,
    top_k: int = 2,
    dtype: str = "float32",
    arrays: dict[str, Any] | None = None,
    experts: dict[str, Any] | None = None,
    **router: Any,
) -> LayerCase:
    """Return the case of a small layer of eighths, whose parts can be replaced."""
    rng = np.random.default_rng(3)

    def eighths(*shape: int) -> np.ndarray:
        return (rng.integers(-12, 13, shape) / 8.0).astype(np.float32)

    made: dict[str, Any] = {
        "hidden": eighths(tokens, H),
        "gate_weight": eighths(E, H),
        "experts_gate": eighths(E, F, H),
        "experts_up": eighths(E, F, H),
        "experts_down": eighths(E, H, F),
    }
    if shared != "none":
        made |= {
            "shared_gate_proj": eighths(F, H),
            "shared_up_proj": eighths(F, H),
            "shared_down_proj": eighths(H, F),
        }
    if gated:
        made["shared_gate"] = eighths(1, H)
    config = LayerConfig(
        router=RouterConfig(num_experts=E, top_k=top_k, **router),
        experts=ExpertsConfig(num_experts=E, **(experts or {})),
        shared=SharedExpertConfig(kind=shared, gated=gated),
    )
    inputs = LayerInputs(**{**made, **(arrays or {})}, dtype=dtype)
    return LayerCase(config=config, inputs=inputs)


def _biased(*, router: bool) -> LayerCase:
    biases = {
        "experts_gate_bias": np.ones((E, F), np.float32),
        "experts_up_bias": np.ones((E, F), np.float32),
        "experts_down_bias": np.ones((E, H), np.float32),
    }
    own = {"gate_bias": np.ones(E, np.float32)} if router else {}
    return composed(arrays={**biases, **own})


NEAR_LAYERS: dict[str, LayerCase] = {
    "layer-shared": composed(arrays={"shared_down_proj": np.zeros((H, F), np.float32)}),
    "layer-shared-gated": composed(gated=False),
    "layer-without-shared": composed(),
    "layer-scaled-beside-shared": composed(scale=2.5, shared="none"),
    "layer-several": composed(top_k=1),
    "layer-biased-experts": _biased(router=True),
    "layer-selection-bias": composed(
        score="sigmoid", arrays={"selection_bias": np.zeros(E, np.float32)}
    ),
    "layer-no-token": composed(tokens=1),
}
"""A case for each event, which does not show it."""

"""Routes for tests: small ones, and a strategy of them with their configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from moe_routing.reference import PermutationConfig, Routes


def routes_of(ids: Any) -> Routes:
    """Routes with weights that are all distinct, 0 where a route is absent."""
    ids = np.asarray(ids, np.int64).reshape(len(ids), -1 if len(ids) else np.shape(ids)[1])
    weights = (1 + np.arange(ids.size, dtype=np.float32)).reshape(ids.shape) / 1024
    return Routes(expert_ids=ids, weights=np.where(ids < 0, np.float32(0), weights))


@st.composite
def calls(draw: st.DrawFn) -> tuple[PermutationConfig, Routes]:
    """Draw small calls."""
    experts, tokens, top_k = (draw(st.integers(a, b)) for a, b in ((1, 6), (0, 9), (1, 4)))
    align = draw(st.sampled_from([1, 2, 4, 8]))
    config = PermutationConfig(
        num_experts=experts, align=align, empty_takes=draw(st.sampled_from([0, align]))
    )
    size = tokens * top_k
    ids = draw(st.lists(st.integers(-1, experts - 1), min_size=size, max_size=size))
    return config, routes_of(np.reshape(ids, (tokens, top_k)))

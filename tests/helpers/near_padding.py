"""Near misses of the events of padding: all is there but the one thing."""

from __future__ import annotations

from typing import Any

import numpy as np
from near_experts import ran

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.conformance.calls.padding import PaddedCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import ROWS
from moe_routing.conformance.generators.padding import holding
from moe_routing.reference import Padding, RouterConfig, RouterInputs


def padded(real: Any, told: Any = "valid", held: str = "as-is") -> PaddedCase:
    """Return three tokens of which these are none of padding."""
    inputs = RouterInputs(
        hidden=np.array(ROWS, np.float32), gate_weight=np.eye(4, dtype=np.float32)
    )
    case = Case(config=RouterConfig(num_experts=4, top_k=2), inputs=inputs)
    kept = np.array(real)
    return PaddedCase.of(holding(case, kept, held), Padding(real=kept, told=told))


NEAR_PADDING: dict[str, AnyCase] = {
    "padded-some": padded((1, 1, 1)),
    "padded-last": padded((0, 1, 1)),
    "padded-between": padded((0, 1, 1)),
    "padded-first": padded((1, 0, 1)),
    "padded-all": padded((0, 0, 1)),
    "padded-none": padded((1, 1, 0)),
    "padded-nan": padded((1, 1, 0), held="infinite"),
    "padded-infinite": padded((1, 1, 0), held="nan"),
    "padded-by-count": padded((1, 1, 0)),
    "padded-by-valid": padded((1, 1, 0), "count"),
    "padded-by-padding": padded((1, 1, 0)),
    "padded-tokens-above-1024": padded((1, 1, 0)),
    "padded-experts": ran([[-1, -1], [0, 1]]),
}
"""A case for each event that stands alone, which does not show it."""

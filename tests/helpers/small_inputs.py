"""Inputs of a small call, with any array replaced."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.reference import (
    RouterInputs,
    SharedExpertInputs,
)

HIDDEN = np.ones((3, 4), np.float32)
GATE = np.ones((8, 4), np.float32)
SHARED = {"hidden": HIDDEN, "gate_proj": GATE, "up_proj": GATE, "down_proj": GATE.T}


def given(**fields: Any) -> RouterInputs:
    """Return inputs of 3 tokens, 4 columns and 8 experts, with these arrays."""
    return RouterInputs(**{"hidden": HIDDEN, "gate_weight": GATE, **fields})


def shared(**fields: Any) -> SharedExpertInputs:
    """Return the inputs of a shared expert, with these arrays."""
    return SharedExpertInputs(**{**SHARED, **fields})

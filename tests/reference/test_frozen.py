"""Values are frozen, and the arrays of inputs read-only, while the caller's own stay writable."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from moe_routing.reference import (
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    SharedExpertInputs,
    preset,
    route,
    stages,
)

ROUTER = {"num_experts": 8, "top_k": 2}
CONFIG = RouterConfig(**ROUTER)
GATE = np.ones((8, 4), np.float32)
INPUTS = RouterInputs(hidden=np.ones((3, 4), np.float32), gate_weight=GATE)
SHARED = {"hidden": GATE[:3], "gate_proj": GATE, "up_proj": GATE, "down_proj": GATE.T}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (CONFIG, "top_k"),
        (RouterConfig.unchecked(**ROUTER), "top_k"),
        (Groups(count=2, kept=1), "kept"),
        (Renormalize(), "eps"),
        (RmsNorm(), "eps"),
        (preset("deepseek_v3"), "config"),
        (INPUTS, "hidden"),
        (route(CONFIG, INPUTS), "weights"),
        (stages(CONFIG, INPUTS), "scores"),
        (SharedExpertConfig(), "gated"),
        (SharedExpertInputs(**SHARED), "hidden"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_values_are_frozen(value: object, field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, 1)
    with pytest.raises(FrozenInstanceError):
        delattr(value, field)


def test_input_arrays_are_read_only_while_the_callers_own_stay_writable() -> None:
    own = {
        "hidden": np.ones((3, 8), np.float32),
        "gate_weight": np.eye(8, dtype=np.float32),
        "gate_bias": np.ones(8, np.float32),
        "selection_bias": np.ones(8, np.float32),
        "per_expert_scale": np.ones(8),
        "hidden_scale": np.ones(8, np.float16),
        "expert_table": np.zeros((2, 2), np.int64),
        "token_ids": np.zeros(3, np.int32),
    }
    for extra in ("gate_delta", "logits"):  # the two exclude each other
        own[extra] = np.ones((8, 8) if extra == "gate_delta" else (3, 8), np.float32)
        arrays = RouterInputs(**own).arrays()
        assert set(arrays) == set(own)
        assert_read_only(arrays, own)
        del own[extra]


def test_arrays_made_from_logits_are_read_only_too() -> None:
    logits = np.array([[1.0, -np.inf]], np.float32)
    arrays = RouterInputs.from_logits(logits).arrays()
    assert set(arrays) == {"hidden", "gate_weight", "gate_bias", "logits"}
    assert_read_only(arrays, {"logits": logits})


def test_shared_expert_arrays_are_read_only_while_the_callers_own_stay_writable() -> None:
    own = {**{name: array.copy() for name, array in SHARED.items()}, "gate": np.ones((1, 4))}
    assert_read_only(SharedExpertInputs(**own).arrays(), own)


def assert_read_only(arrays: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        assert array.dtype in (np.float32, np.int64), f"{name} is {array.dtype}"
    for name, array in own.items():
        assert array.flags.writeable, f"the caller's {name} must stay writable"

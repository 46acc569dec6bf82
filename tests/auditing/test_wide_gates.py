"""A model with a gate in float32 beside 16 bits: its call is one that a file can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moe_routing.conformance import Case, load_case, save_case
from moe_routing.implementations.models.arrays import of_dtype
from moe_routing.reference import RouterConfig, RouterInputs

FINE = 1.0 + 2.0**-13


def seen(gate: float) -> RouterInputs:
    arrays = {"hidden": np.ones((1, 2), np.float32), "gate_weight": np.full((3, 2), gate)}
    made: RouterInputs = of_dtype(RouterInputs, "bfloat16", arrays)
    return made


def test_a_gate_that_16_bits_do_not_hold_is_said_to_be_float32(tmp_path: Path) -> None:
    inputs = seen(FINE)
    assert (inputs.dtype, inputs.gate_dtype) == ("bfloat16", "float32")
    config = RouterConfig(num_experts=3, top_k=1)
    save_case(Case(config=config, inputs=inputs), tmp_path / "case.json")
    loaded, _ = load_case(tmp_path / "case.json")
    assert np.array_equal(loaded.inputs.gate_weight, inputs.gate_weight)


def test_a_gate_that_16_bits_hold_is_no_other() -> None:
    assert seen(1.0).gate_dtype == "input"

"""A gate, or given logits, in float32 beside hidden states of 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import assert_refused

from moe_routing.reference import RouterConfig, RouterInputs, route
from moe_routing.reference.carriers import MOST

FINE = 1.0 + 2.0**-13
WIDE: dict[str, Any] = {"dtype": "bfloat16", "gate_dtype": "float32"}
ROWS = np.array([[FINE, 1.0, -0.5], [0.1, 0.2, 0.3], [FINE, 1.0, -0.5]], np.float32)


def test_a_float32_gate_holds_what_16_bits_do_not() -> None:
    inputs = RouterInputs(hidden=[[1.0, 2.0]], gate_weight=[[FINE, 2.0]], **WIDE)
    assert inputs.dtype_of("gate_weight") == inputs.dtype_of("gate_bias") == "float32"
    assert inputs.dtype_of("logits") == inputs.dtype_of("gate_delta") == "float32"
    assert inputs.dtype_of("hidden") == inputs.dtype_of("per_expert_scale") == "bfloat16"
    assert inputs.dtype_of("selection_bias") == "float32"
    assert inputs.dtype_of("token_ids") == "int64"


def test_in_float32_both_are_one() -> None:
    inputs = RouterInputs(hidden=[[1.0]], gate_weight=[[1.0]], gate_dtype="float32")
    assert inputs.gate_dtype == "input"


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"dtype": "bfloat16"}, ["gate_weight[0, 0]", "bfloat16", "or set gate_dtype='float32'"]),
        ({**WIDE, "hidden": [[FINE]]}, ["hidden[0, 0]", "bfloat16", "round"]),
        ({**WIDE, "gate_dtype": "bfloat16"}, ["gate_dtype", "input, float32", "'bfloat16'"]),
        ({**WIDE, "per_expert_scale": [FINE]}, ["per_expert_scale[0]", "bfloat16"]),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], fragments: list[str]) -> None:
    arrays = {"hidden": [[1.0]], "gate_weight": [[FINE]]}
    assert_refused(lambda: RouterInputs(**{**arrays, **fields}), *fragments)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_given_logits_are_carried_by_the_gate(dtype: str) -> None:
    inputs = RouterInputs.from_logits(ROWS, dtype=dtype, gate_dtype="float32")
    assert np.array_equal(inputs.hidden @ inputs.gate_weight.T, ROWS)
    assert inputs.hidden.shape == (3, 2)  # the rows that differ
    assert np.array_equal(inputs.logits, ROWS)
    routed = route(RouterConfig(num_experts=3, top_k=1), inputs)
    assert routed.expert_ids.tolist() == [[0], [2], [0]]


def test_given_logits_of_no_token_have_a_gate() -> None:
    inputs = RouterInputs.from_logits(np.zeros((0, 3), np.float32), **WIDE)
    assert (inputs.hidden.shape, inputs.gate_weight.shape) == ((0, 1), (3, 1))


def test_a_row_of_nan_and_a_lost_expert_are_carried() -> None:
    rows = np.concatenate([ROWS, np.full((1, 3), np.nan)]).astype(np.float32)
    with np.errstate(invalid="ignore"):
        made = RouterInputs.from_logits(rows, **WIDE)
        assert np.array_equal(made.hidden @ made.gate_weight.T, rows, equal_nan=True)
    lost = ROWS.copy()
    lost[:, 1] = -np.inf
    made = RouterInputs.from_logits(lost, **WIDE)
    assert made.gate_bias is not None
    assert np.array_equal(made.hidden @ made.gate_weight.T + made.gate_bias, lost)


def test_a_logit_that_no_gate_carries_is_refused() -> None:
    assert_refused(
        lambda: RouterInputs.from_logits([[np.inf, 0.0]], **WIDE), "logits[0, 0]=inf", "a gate"
    )


def test_more_rows_than_hidden_states_can_pick_are_refused() -> None:
    rows = np.arange(4097, dtype=np.float32)[:, None]
    fragments = ("4097 different rows of logits", f"> {MOST} numbers")
    assert_refused(lambda: RouterInputs.from_logits(rows, **WIDE), *fragments)
    RouterInputs.from_logits(rows % 64, **WIDE)

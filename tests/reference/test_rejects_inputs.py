"""What inputs refuse, and how: one line with the argument, its shape or value and the rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from refusals import assert_refused, shown
from small_inputs import GATE, HIDDEN, given, shared

from moe_routing.reference import (
    Groups,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    SharedExpertConfig,
    route,
    shared_contribution,
    stages,
)

TABLE = {"expert_table": [[1, 2], [3, 4]], "token_ids": [0, 1, 0]}
DTYPES = "float32, bfloat16, float16"


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, np.int32, np.uint8])
def test_token_ids_of_no_tokens_may_be_empty_of_any_kind(kind: type) -> None:
    inputs = given(hidden=HIDDEN[:0], expert_table=[[1, 2]], token_ids=np.zeros(0, kind))
    assert (inputs.token_ids.dtype, inputs.token_ids.shape) == (np.int64, (0,))
    given(hidden=HIDDEN[:0], expert_table=[[1, 2]], token_ids=[])


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"token_ids": [0.0, 1.0, 0.0]}, ["token_ids", "int64", "float64", "pass integers"]),
        ({"token_ids": [True, False, True]}, ["token_ids", "int64", "bool"]),
        ({"token_ids": []}, ["token_ids", "[T]", "T=3", "(0,)"]),
        ({"token_ids": [0, 1]}, ["token_ids", "[T]", "T=3", "(2,)"]),
        ({"token_ids": np.full(3, 2**63, np.uint64)}, ["token_ids[0]=9223372036854775808"]),
        ({"token_ids": None}, ["expert_table", "token_ids", "together"]),
        ({"expert_table": None}, ["expert_table", "token_ids", "together"]),
        ({"expert_table": [["1", "2"]]}, ["expert_table", "int64", "<U1"]),
        ({"expert_table": [[1.0, 2.0]]}, ["expert_table", "int64", "float64"]),
        ({"expert_table": [[1, 2], [3]]}, ["expert_table", "equal length"]),
        ({"expert_table": [1, 2]}, ["expert_table", "[V, K]", "(2,)"]),
        ({"expert_table": np.zeros((0, 2), int)}, ["V=0", "expert_table", "only T"]),
    ],
    ids=shown,
)
def test_tables_that_are_none_are_refused(fields: dict[str, Any], fragments: list[str]) -> None:
    assert_refused(lambda: given(**{**TABLE, **fields}), *fragments)


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"hidden": HIDDEN[0]}, ["hidden", "[T, H]", "(4,)"]),
        ({"gate_weight": GATE[:, 0]}, ["gate_weight", "[E, H]", "(8,)"]),
        ({"gate_weight": GATE[:, :3]}, ["gate_weight", "[E, H]", "H=4", "(8, 3)"]),
        ({"hidden": 2}, ["hidden", "[T, H]", "()"]),
        ({"gate_bias": np.ones(7)}, ["gate_bias", "[E]", "E=8", "(7,)"]),
        ({"gate_bias": np.ones((1, 8))}, ["gate_bias", "[E]", "(1, 8)"]),
        ({"selection_bias": np.ones(9)}, ["selection_bias", "[E]", "E=8", "(9,)"]),
        ({"gate_delta": np.ones((8, 5))}, ["gate_delta", "[E, H]", "H=4", "(8, 5)"]),
        ({"gate_delta": np.ones((7, 4))}, ["gate_delta", "[E, H]", "E=8", "(7, 4)"]),
        ({"per_expert_scale": np.ones(4)}, ["per_expert_scale", "[E]", "E=8", "(4,)"]),
        ({"hidden_scale": np.ones(8)}, ["hidden_scale", "[H]", "H=4", "(8,)"]),
        ({"logits": np.ones((3, 7))}, ["logits", "[T, E]", "E=8", "(3, 7)"]),
        ({"logits": np.ones((2, 8))}, ["logits", "[T, E]", "T=3", "(2, 8)"]),
        ({"hidden": HIDDEN[:, :0], "gate_weight": GATE[:, :0]}, ["H=0", "hidden", "only T"]),
        ({"gate_weight": GATE[:0]}, ["E=0", "gate_weight", "only T"]),
        ({"dtype": "float64"}, ["dtype", DTYPES, "'float64'"]),
        ({"dtype": np.array(["float32"])}, ["dtype", DTYPES, "array(['float32']"]),
        ({"dtype": None}, ["dtype", DTYPES, "None"]),
        ({"selection_bias_on": "moe"}, ["selection_bias_on", "gate, block, statics", "'moe'"]),
        ({"selection_bias": [math.nan] * 8}, ["selection_bias[0]=nan", "finite", "-inf"]),
        ({"selection_bias": [0.0] * 7 + [math.inf]}, ["selection_bias[7]=inf", "finite", "-inf"]),
        ({"per_expert_scale": [1.0, math.nan] * 4}, ["per_expert_scale[1]=nan", "finite"]),
        ({"per_expert_scale": [-math.inf] * 8}, ["per_expert_scale[0]=-inf", "finite"]),
        ({"logits": np.ones((3, 8)), "gate_delta": GATE}, ["gate_delta", "logits"]),
    ],
    ids=shown,
)
def test_inputs_that_do_not_fit_each_other_are_refused(
    fields: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: given(**fields), *fragments)


@pytest.mark.parametrize(
    ("config", "inputs", "fragments"),
    [
        ({"num_experts": 9}, {}, ["gate_weight", "[9, H]", "num_experts=9", "(8, 4)"]),
        ({}, {"hidden_scale": np.ones(4)}, ["hidden_scale", "input_norm"]),
        ({"input_norm": RmsNorm()}, {"logits": np.ones((3, 8))}, ["input_norm", "logits"]),
        ({"top_k": 3}, TABLE, ["expert_table", "[V, 3]", "top_k=3", "(2, 2)"]),
        ({}, {**TABLE, "selection_bias": np.ones(8)}, ["expert_table", "selection_bias"]),
        ({"groups": Groups(count=2, kept=1)}, TABLE, ["expert_table", "groups", "selects nothing"]),
        (
            {"weights_from": "masked_scores"},
            TABLE,
            ["expert_table", "weights_from='masked_scores'", "a table excludes groups"],
        ),
        ({}, {**TABLE, "expert_table": [[1, 8]] * 2}, ["expert_table", "[0, 8)", "from 1 to 8"]),
        ({}, {**TABLE, "expert_table": [[1, -1]] * 2}, ["expert_table", "[0, 8)", "from -1 to 1"]),
        ({}, {**TABLE, "token_ids": [0, 2, 0]}, ["token_ids", "[0, 2)", "from 0 to 2"]),
        ({}, {**TABLE, "token_ids": [0, -1, 0]}, ["token_ids", "[0, 2)", "from -1 to 0"]),
    ],
    ids=shown,
)
@pytest.mark.parametrize("call", [route, stages])
def test_inputs_that_do_not_fit_the_configuration_are_refused(
    call: Any, config: dict[str, Any], inputs: dict[str, Any], fragments: list[str]
) -> None:
    router = RouterConfig(**{"num_experts": 8, "top_k": 2, **config})
    assert_refused(lambda: call(router, given(**inputs)), *fragments)


@pytest.mark.parametrize(
    ("logits", "others", "fragments"),
    [
        ([[1.0, math.inf]], {}, ["logits[0, 1]=inf", "finite"]),
        ([[1.0, -math.inf], [1.0, 0.0]], {}, ["logits[0, 1]=-inf", "every token"]),
        ([[1.0, 2.0], [1.0, math.nan]], {}, ["logits[1, 1]=nan", "all NaN"]),
        ([1.0, 2.0], {}, ["logits", "[T, E]", "(2,)"]),
        ([[[1.0]]], {}, ["logits", "[T, E]", "(1, 1, 1)"]),
        (1.0, {}, ["logits", "[T, E]", "()"]),
        (np.zeros((3, 0)), {}, ["E=0", "logits", "only T"]),
        ([[1.0]], {"hidden": [[1.0]]}, ["hidden", "from_logits"]),
        ([[1.0]], {"gate_weight": [[1.0]]}, ["gate_weight", "from_logits"]),
        ([[1.0]], {"gate_bias": [1.0]}, ["gate_bias", "from_logits"]),
        ([[1.0]], {"gate_delta": [[1.0]]}, ["gate_delta", "logits"]),
        ([[1.0]], {"selection_bias": [1.0, 2.0]}, ["selection_bias", "E=1", "(2,)"]),
        ([[1.0]], {"dtype": "float64"}, ["dtype", DTYPES, "'float64'"]),
    ],
    ids=shown,
)
def test_logits_that_no_identity_gate_carries_are_refused(
    logits: Any, others: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: RouterInputs.from_logits(logits, **others), *fragments)


# --- shared experts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": HIDDEN[0]}, "hidden of shape [T, H] but got shape (4,)"),
        ({"gate_proj": GATE[:, :3]}, "gate_proj of shape [I, H] with H=4 but got shape (8, 3)"),
        ({"up_proj": GATE[:7]}, "up_proj of shape [I, H] with I=8 and H=4 but got shape (7, 4)"),
        ({"down_proj": GATE}, "down_proj of shape [H, I] with H=4 and I=8 but got shape (8, 4)"),
        ({"gate": np.ones(4)}, "gate of shape [1, H] with H=4 but got shape (4,)"),
        ({"gate": np.ones((2, 4))}, "gate of shape [1, H] with H=4 but got shape (2, 4)"),
        ({"gate_proj": GATE[:0]}, "I=0 in gate_proj of shape (0, 4): only T may be empty"),
        ({"hidden": HIDDEN[:, :0]}, "H=0 in hidden of shape (3, 0): only T may be empty"),
        ({"dtype": "float64"}, f"dtype to be one of {DTYPES} but got 'float64'"),
    ],
    ids=shown,
)
def test_shared_expert_arrays_that_do_not_fit_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    assert_refused(lambda: shared(**fields), message)


def test_a_gate_that_is_missing_or_not_wanted_is_refused() -> None:
    for gated, gate, message in (
        (True, None, "gate to be given for gated=True but got None"),
        (False, np.ones((1, 4)), "gate to be None for gated=False but got an array"),
    ):
        config, inputs = SharedExpertConfig(gated=gated), shared(gate=gate)
        assert_refused(lambda c=config, i=inputs: shared_contribution(c, i), message)

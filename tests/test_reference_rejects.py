"""What the reference router refuses, and how: one line with the argument, its value and the rule.

Rows marked with ``wanted`` are refusals that are not yet as they should be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

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
    route,
    shared_contribution,
    stages,
)

ROUTER = {"num_experts": 8, "top_k": 2}
HIDDEN = np.ones((3, 4), np.float32)
GATE = np.ones((8, 4), np.float32)
INEXACT = np.full((3, 4), 0.1)
TABLE = {"expert_table": [[1, 2], [3, 4]], "token_ids": [0, 1, 0]}
SHARED = {"hidden": HIDDEN, "gate_proj": GATE, "up_proj": GATE, "down_proj": GATE.T}


class Unreadable:
    """What NumPy meets in a bfloat16 tensor: an array interface that raises."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise TypeError("Got unsupported ScalarType BFloat16")


def wanted(*row: Any, why: str) -> Any:
    """A row that fails today."""
    return pytest.param(*row, marks=pytest.mark.xfail(reason=why))


def shown(value: Any) -> str:
    """A short test id: an array by dtype and shape, expected fragments by the first."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value[0]
    if isinstance(value, dict):
        return " ".join(f"{name}={shown(field)}" for name, field in value.items()) or "plain"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    name = getattr(value, "__name__", None) or (value if isinstance(value, str) else repr(value))
    return re.sub(r"\s+", " ", name)[:40]


def assert_refused(call: Callable[[], object], *fragments: str) -> None:
    """Assert that ``call`` raises a one-line ``ValueError`` whose message holds ``fragments``."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the fragments are the match
        call()
    message = str(caught.value)
    assert "\n" not in message, f"one line, not: {message}"
    missing = [fragment for fragment in fragments if fragment not in message]
    assert not missing, f"{missing} should be in: {message}"


def made(**fields: Any) -> RouterConfig:
    return RouterConfig(**{**ROUTER, **fields})


def given(**fields: Any) -> RouterInputs:
    return RouterInputs(**{"hidden": HIDDEN, "gate_weight": GATE, **fields})


# --- configurations -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["num_experts", "top_k"])
@pytest.mark.parametrize(
    ("value", "fragments"),
    [
        (0, ["=0 < 1"]),
        (-1, ["=-1 < 1"]),
        (True, ["an int", "True", "bool"]),
        (2.0, ["an int", "2.0", "float"]),
        (np.int64(2), ["an int", "int64"]),
        ("2", ["an int", "'2'", "str"]),
        (None, ["an int", "None"]),
        wanted(np.zeros((2, 2)), ["an int", "ndarray"], why="an array's repr has many lines"),
    ],
    ids=shown,
)
def test_a_count_that_is_no_positive_int_is_refused(
    name: str, value: Any, fragments: list[str]
) -> None:
    assert_refused(lambda: made(**{name: value}), name, *fragments)


@pytest.mark.parametrize("name", ["scale", "logit_multiplier", "logit_softcap"])
@pytest.mark.parametrize(
    ("value", "fragments"),
    [
        (math.nan, ["finite", "nan"]),
        (math.inf, ["finite", "inf"]),
        (-math.inf, ["finite", "-inf"]),
        ("1.0", ["a number", "'1.0'", "str"]),
        (True, ["a number", "True", "bool"]),
        (1j, ["a number", "1j", "complex"]),
        wanted(10**400, ["finite"], why="math.isfinite raises OverflowError for huge ints"),
    ],
    ids=shown,
)
def test_a_factor_that_is_no_finite_number_is_refused(
    name: str, value: Any, fragments: list[str]
) -> None:
    assert_refused(lambda: made(**{name: value}), name, *fragments)


@pytest.mark.parametrize("name", ["scale", "logit_multiplier"])
def test_a_factor_of_none_is_refused(name: str) -> None:
    assert_refused(lambda: made(**{name: None}), name, "a number", "None")


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("score", "softmax, sigmoid, sqrtsoftplus, identity"),
        ("weights_from", "scores, masked_scores, softmax_of_selected, sigmoid_of_selected"),
        ("logits_dtype", "input, float32"),
        ("scores_dtype", "input, float32"),
        ("weights_dtype", "input, float32"),
    ],
    ids=shown,
)
@pytest.mark.parametrize(
    "value",
    [
        "tanh",
        "float64",
        "",
        None,
        1,
        ["softmax"],
        wanted(np.array(["input", "x"]), why="`in` cannot compare an array with the choices"),
    ],
    ids=shown,
)
def test_an_unknown_choice_is_refused_with_all_choices(name: str, choices: str, value: Any) -> None:
    assert_refused(lambda: made(**{name: value}), name, choices, repr(value))


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"top_k": 9}, ["top_k=9 > num_experts=8", "distinct"]),
        ({"logit_softcap": 0.0}, ["logit_softcap=0.0", "above"]),
        ({"logit_softcap": -30.0}, ["logit_softcap=-30.0", "above"]),
        ({"score": "identity"}, ["weights_from='scores'", "score='identity'"]),
        (
            {"score": "identity", "weights_from": "masked_scores"},
            ["weights_from='masked_scores'", "score='identity'", "softmax_of_selected"],
        ),
        ({"groups": {"count": 2, "kept": 1}}, ["groups", "a Groups", "{'count': 2", "dict"]),
        ({"groups": 4}, ["groups", "a Groups", "4", "int"]),
        ({"renormalize": True}, ["renormalize", "a Renormalize", "True", "bool"]),
        ({"input_norm": 1e-6}, ["input_norm", "a RmsNorm", "1e-06", "float"]),
        ({"groups": Groups(count=3, kept=1)}, ["num_experts=8", "count=3", "divide"]),
        ({"groups": Groups(count=16, kept=1)}, ["num_experts=8", "count=16", "divide"]),
        (
            {"top_k": 3, "groups": Groups(count=4, kept=1)},
            ["top_k=3 > 2 experts left by Groups(count=4, kept=1", "keep more groups"],
        ),
    ],
    ids=shown,
)
def test_a_configuration_that_fits_nothing_is_refused(
    fields: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: made(**fields), *fragments)


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"count": 0}, ["Groups.count=0 < 1"]),
        ({"count": 2.0}, ["Groups.count", "an int", "2.0"]),
        ({"count": True}, ["Groups.count", "an int", "True"]),
        ({"kept": 0}, ["Groups.kept=0 < 1"]),
        ({"kept": -1}, ["Groups.kept=-1 < 1"]),
        ({"kept": 5}, ["Groups.kept=5 > Groups.count=4"]),
        ({"top": 0}, ["Groups.top=0 < 1"]),
        ({"top": None}, ["Groups.top", "an int", "None"]),
        ({"fill": -1.0}, ["Groups.fill", "-inf or 0.0", "-1.0"]),
        ({"fill": math.inf}, ["Groups.fill", "-inf or 0.0", "inf"]),
        ({"fill": math.nan}, ["Groups.fill", "-inf or 0.0", "nan"]),
        ({"fill": "-inf"}, ["Groups.fill", "-inf or 0.0", "'-inf'"]),
        ({"fill": None}, ["Groups.fill", "-inf or 0.0", "None"]),
        wanted({"fill": False}, ["Groups.fill", "False"], why="False equals 0.0"),
        wanted({"fill": np.zeros(2)}, ["Groups.fill"], why="`in` cannot compare an array"),
    ],
    ids=shown,
)
def test_groups_that_make_no_sense_are_refused(
    fields: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: Groups(**{"count": 4, "kept": 2, **fields}), *fragments)


@pytest.mark.parametrize(
    ("make", "name", "bad"),
    [
        (Renormalize, "eps", [-1e-20, math.nan, math.inf, "0", None, True]),
        (Renormalize, "floor", [-1.0, math.nan, math.inf, "0", None, True]),
        (Renormalize, "order", [0, 0.0, -1.0, math.nan, math.inf, "1", None, True]),
        (RmsNorm, "eps", [0.0, -1e-6, math.nan, math.inf, "0", None, True]),
    ],
    ids=shown,
)
def test_a_normalisation_that_makes_no_sense_is_refused(
    make: type, name: str, bad: list[Any]
) -> None:
    for value in bad:
        fragments = f"{make.__name__}.{name}", repr(value)
        assert_refused(lambda value=value: make(**{name: value}), *fragments)


# --- inputs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"hidden": HIDDEN[0]}, ["hidden", "[T, H]", "(4,)"]),
        ({"hidden": HIDDEN[None]}, ["hidden", "[T, H]", "(1, 3, 4)"]),
        ({"hidden": 1.0}, ["hidden", "[T, H]", "()"]),
        ({"gate_weight": GATE[:, 0]}, ["gate_weight", "[E, H]", "(8,)"]),
        ({"gate_weight": GATE[:, :3]}, ["gate_weight", "[E, H]", "H=4", "(8, 3)"]),
        ({"gate_bias": np.ones(7)}, ["gate_bias", "[E]", "E=8", "(7,)"]),
        ({"gate_bias": np.ones((1, 8))}, ["gate_bias", "[E]", "(1, 8)"]),
        ({"selection_bias": np.ones(9)}, ["selection_bias", "[E]", "E=8", "(9,)"]),
        ({"gate_delta": np.ones((8, 5))}, ["gate_delta", "[E, H]", "H=4", "(8, 5)"]),
        ({"gate_delta": np.ones((7, 4))}, ["gate_delta", "[E, H]", "E=8", "(7, 4)"]),
        ({"per_expert_scale": np.ones(4)}, ["per_expert_scale", "[E]", "E=8", "(4,)"]),
        ({"hidden_scale": np.ones(8)}, ["hidden_scale", "[H]", "H=4", "(8,)"]),
        ({"logits": np.ones((3, 7))}, ["logits", "[T, E]", "E=8", "(3, 7)"]),
        ({"logits": np.ones((2, 8))}, ["logits", "[T, E]", "T=3", "(2, 8)"]),
        ({**TABLE, "token_ids": [0, 1]}, ["token_ids", "[T]", "T=3", "(2,)"]),
        ({**TABLE, "expert_table": [1, 2]}, ["expert_table", "[V, K]", "(2,)"]),
        ({"hidden": HIDDEN[:, :0], "gate_weight": GATE[:, :0]}, ["H=0", "only T"]),
        ({"gate_weight": GATE[:0]}, ["E=0", "only T"]),
        ({**TABLE, "expert_table": np.zeros((0, 2), int)}, ["V=0", "only T"]),
        wanted({"hidden": [[1.0, 2.0], [3.0]]}, ["hidden", "[T, H]"], why="NumPy's own words"),
    ],
    ids=shown,
)
def test_arrays_whose_shapes_do_not_fit_are_refused(
    fields: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: given(**fields), *fragments)


@pytest.mark.parametrize("name", ["hidden", "gate_weight"])
@pytest.mark.xfail(reason="None counts as absent for every array, and route raises AttributeError")
def test_a_required_array_that_is_none_is_refused(name: str) -> None:
    assert_refused(lambda: given(**{name: None}), name, "None")


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"hidden": "hidden"}, ["hidden", "float32", "<U6"]),
        ({"hidden": HIDDEN.astype(str)}, ["hidden", "float32", "<U"]),
        ({"hidden": HIDDEN.astype(complex)}, ["hidden", "float32", "complex128"]),
        ({"hidden": HIDDEN.astype(object)}, ["hidden", "float32", "object"]),
        ({"hidden": HIDDEN.astype(bool)}, ["hidden", "float32", "bool"]),
        ({"gate_weight": GATE.astype("datetime64[s]")}, ["gate_weight", "float32", "datetime64"]),
        ({**TABLE, "token_ids": [0.0, 1.0, 0.0]}, ["token_ids", "int64", "float64"]),
        ({**TABLE, "token_ids": [True, False, True]}, ["token_ids", "int64", "bool"]),
        ({**TABLE, "expert_table": [["1", "2"]]}, ["expert_table", "int64", "<U1"]),
        ({**TABLE, "expert_table": [[1.0, 2.0]]}, ["expert_table", "int64", "float64"]),
        wanted({"hidden": Unreadable()}, ["hidden"], why="the TypeError of __array__ comes out"),
    ],
    ids=shown,
)
def test_arrays_of_another_kind_are_refused(fields: dict[str, Any], fragments: list[str]) -> None:
    assert_refused(lambda: given(**fields), *fragments)


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"hidden": INEXACT}, ["hidden[0, 0]", "0.1", "float32"]),
        ({"hidden": INEXACT * 1e300}, ["hidden[0, 0]", "e+299", "float32"]),
        ({"gate_weight": np.full((8, 4), 2**24 + 1)}, ["gate_weight[0, 0]", "16777217"]),
        ({"selection_bias": np.full(8, 0.1)}, ["selection_bias[0]", "0.1", "float32"]),
        (
            {**TABLE, "token_ids": np.array([0, 2**64 - 1, 0], np.uint64)},
            ["token_ids[1]", "18446744073709551615", "int64"],
        ),
        wanted(
            {"hidden": np.full((3, 4), 2**53 + 1)},
            ["hidden[0, 0]", "9007199254740993"],
            why="the comparison with float32 rounds the integers to float64",
        ),
    ],
    ids=shown,
)
def test_values_that_float32_or_int64_would_round_are_refused(
    fields: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: given(**fields), *fragments)


@pytest.mark.parametrize(
    "name",
    ["hidden", "gate_weight", "gate_bias", "gate_delta", "per_expert_scale", "hidden_scale"],
)
@pytest.mark.parametrize(
    ("dtype", "value"), [("bfloat16", 1 + 2**-8), ("float16", 1 + 2**-11), ("float16", 65536.0)]
)
def test_values_that_the_storage_dtype_would_round_are_refused(
    name: str, dtype: str, value: float
) -> None:
    shapes = {"hidden": (3, 4), "gate_weight": (8, 4), "gate_delta": (8, 4), "hidden_scale": (4,)}
    array = np.ones(shapes.get(name, (8,)), np.float32)
    array.flat[1] = value
    where = "[0, 1]" if array.ndim == 2 else "[1]"
    given(**{name: array})
    assert_refused(
        lambda: given(**{name: array}, dtype=dtype),
        f"{name}{where}={value!r}",
        f"dtype={dtype!r}",
        "exact",
    )


def test_a_selection_bias_is_float32_whatever_the_storage_dtype() -> None:
    bias = np.full(8, 0.1, np.float32)
    assert given(selection_bias=bias, dtype="bfloat16").selection_bias.tolist() == bias.tolist()


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"dtype": "float64"}, ["dtype", "float32, bfloat16, float16", "'float64'"]),
        ({"dtype": "bf16"}, ["dtype", "float32, bfloat16, float16", "'bf16'"]),
        ({"dtype": None}, ["dtype", "float32, bfloat16, float16", "None"]),
        ({"selection_bias_on": "moe"}, ["selection_bias_on", "gate, block, statics", "'moe'"]),
        ({"selection_bias_on": None}, ["selection_bias_on", "gate, block, statics", "None"]),
        ({"selection_bias": [math.nan] * 8}, ["selection_bias[0]=nan", "finite", "-inf"]),
        ({"selection_bias": [0.0] * 7 + [math.inf]}, ["selection_bias[7]=inf", "finite", "-inf"]),
        ({"per_expert_scale": [1.0, math.nan] * 4}, ["per_expert_scale[1]=nan", "finite"]),
        ({"per_expert_scale": [-math.inf] * 8}, ["per_expert_scale[0]=-inf", "finite"]),
        ({"logits": np.ones((3, 8)), "gate_delta": GATE}, ["gate_delta", "logits"]),
        ({"expert_table": TABLE["expert_table"]}, ["expert_table", "token_ids", "together"]),
        ({"token_ids": TABLE["token_ids"]}, ["expert_table", "token_ids", "together"]),
    ],
    ids=shown,
)
def test_inputs_that_contradict_themselves_are_refused(
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
            ["expert_table", "weights_from='masked_scores'"],
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
    call: Callable[..., object],
    config: dict[str, Any],
    inputs: dict[str, Any],
    fragments: list[str],
) -> None:
    assert_refused(lambda: call(made(**config), given(**inputs)), *fragments)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("logits", "others", "fragments"),
    [
        ([[1.0, math.inf]], {}, ["logits[0, 1]=inf", "finite"]),
        ([[1.0, -math.inf], [1.0, 0.0]], {}, ["logits[0, 1]=-inf", "every token"]),
        ([[1.0, 2.0], [1.0, math.nan]], {}, ["logits[1, 1]=nan", "all NaN"]),
        ([1.0, 2.0], {}, ["logits", "[T, E]", "(2,)"]),
        ([[[1.0]]], {}, ["logits", "[T, E]", "(1, 1, 1)"]),
        (1.0, {}, ["logits", "[T, E]", "()"]),
        (np.zeros((3, 0)), {}, ["=0", "only T"]),
        ([[1.0]], {"hidden": [[1.0]]}, ["hidden", "from_logits"]),
        ([[1.0]], {"gate_weight": [[1.0]]}, ["gate_weight", "from_logits"]),
        ([[1.0]], {"gate_bias": [1.0]}, ["gate_bias", "from_logits"]),
        ([[1.0]], {"selection_bias": [1.0, 2.0]}, ["selection_bias", "E=1", "(2,)"]),
        ([[1 + 2**-8]], {"dtype": "bfloat16"}, ["1.00390625", "dtype='bfloat16'"]),
        ([[1.0]], {"dtype": "float64"}, ["dtype", "float32, bfloat16, float16", "'float64'"]),
        wanted([[0.1]], {}, ["logits[0, 0]", "0.1"], why="float64 is rounded silently"),
        wanted([[2**24 + 1]], {}, ["logits[0, 0]", "16777217"], why="ints are rounded silently"),
        wanted([[1e300]], {}, ["logits[0, 0]", "1e+300"], why="shows the inf it made of 1e300"),
        wanted([["1.0"]], {}, ["logits", "<U3"], why="NumPy parses strings"),
        wanted("logits", {}, ["logits", "<U6"], why="NumPy's own words"),
        wanted([[True]], {}, ["logits", "bool"], why="booleans become numbers"),
        wanted(None, {}, ["logits", "None"], why="None becomes a NaN without a shape"),
        wanted([[1j]], {}, ["logits", "complex128"], why="raises TypeError"),
        wanted(np.array([[1j]]), {}, ["logits", "complex128"], why="only warns"),
        wanted([[object()]], {}, ["logits", "object"], why="raises TypeError"),
        wanted(Unreadable(), {}, ["logits"], why="raises TypeError"),
    ],
    ids=shown,
)
def test_logits_that_no_identity_gate_carries_are_refused(
    logits: Any, others: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: RouterInputs.from_logits(logits, **others), *fragments)


# --- shared experts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"kind": "both"}, ["kind", "none, singular, plural, mlp", "'both'"]),
        ({"kind": None}, ["kind", "none, singular, plural, mlp", "None"]),
        ({"kind": "none", "gated": True}, ["gated=True", "kind='none'"]),
        wanted({"gated": "yes"}, ["gated", "'yes'"], why="any value is taken for a bool"),
        wanted({"gated": None}, ["gated", "None"], why="any value is taken for a bool"),
    ],
    ids=shown,
)
def test_a_shared_expert_that_makes_no_sense_is_refused(
    fields: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: SharedExpertConfig(**fields), *fragments)


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"hidden": HIDDEN[0]}, ["hidden", "[T, H]", "(4,)"]),
        ({"gate_proj": GATE[:, :3]}, ["gate_proj", "[I, H]", "'H': 4", "(8, 3)"]),
        ({"up_proj": GATE[:7]}, ["up_proj", "[I, H]", "'I': 8", "(7, 4)"]),
        ({"down_proj": GATE}, ["down_proj", "[H, I]", "'H': 4", "(8, 4)"]),
        ({"gate": np.ones(4)}, ["gate", "[1, H]", "(4,)"]),
        ({"gate": np.ones((2, 4))}, ["gate", "[1, H]", "(2, 4)"]),
        ({"dtype": "float64"}, ["dtype", "float32, bfloat16, float16", "'float64'"]),
        ({"dtype": "float16", "hidden": HIDDEN * 65536}, ["hidden", "dtype='float16'"]),
        wanted({"hidden": HIDDEN + 2**-8, "dtype": "bfloat16"}, ["1.00390625"], why="no value"),
        wanted({"hidden": None}, ["hidden", "None"], why="AttributeError in shared_contribution"),
        wanted({"down_proj": None}, ["down_proj", "None"], why="AttributeError later"),
        ({"hidden": INEXACT}, ["hidden[0, 0]", "0.1", "float32"]),
        ({"hidden": INEXACT * 1e300}, ["hidden[0, 0]", "e+299", "float32"]),
        ({"hidden": "hidden"}, ["hidden", "float32", "<U6"]),
        ({"hidden": HIDDEN * 1j}, ["hidden", "float32", "complex64"]),
        ({"up_proj": GATE.astype(object)}, ["up_proj", "float32", "object"]),
        ({"gate": np.ones((1, 4), bool)}, ["gate", "float32", "bool"]),
        ({"gate_proj": GATE[:0], "up_proj": GATE[:0]}, ["gate_proj", "(0, 4)", "only T"]),
        ({"hidden": HIDDEN[:, :0]}, ["hidden", "(3, 0)", "only T"]),
    ],
    ids=shown,
)
def test_shared_expert_arrays_that_do_not_fit_are_refused(
    fields: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: SharedExpertInputs(**{**SHARED, **fields}), *fragments)


@pytest.mark.parametrize(
    ("gated", "gate", "fragments"),
    [
        (True, None, ["gate", "given", "gated=True", "None"]),
        (False, np.ones((1, 4)), ["gate", "None", "gated=False", "an array"]),
    ],
    ids=shown,
)
def test_a_gate_that_is_missing_or_not_wanted_is_refused(
    gated: bool, gate: np.ndarray | None, fragments: list[str]
) -> None:
    inputs = SharedExpertInputs(**SHARED, gate=gate)
    assert_refused(lambda: shared_contribution(SharedExpertConfig(gated=gated), inputs), *fragments)


# --- unchecked, and frozen ----------------------------------------------------------------


def test_unchecked_takes_any_value_and_fills_in_the_defaults() -> None:
    nonsense = {"num_experts": -1, "top_k": "six", "score": None, "groups": {"count": 0}}
    config = RouterConfig.unchecked(**nonsense)
    assert {name: getattr(config, name) for name in nonsense} == nonsense
    assert (config.scale, config.weights_from, config.renormalize) == (1.0, "scores", None)
    assert isinstance(config, RouterConfig)


def test_unchecked_makes_what_the_constructor_makes() -> None:
    assert RouterConfig.unchecked(num_experts=8, top_k=2, scale=2.5) == made(scale=2.5)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({**ROUTER, "topk": 2}, "topk"),
        ({"num_experts": 8}, "top_k"),
        ({"top_k": 2}, "num_experts"),
        ({}, "num_experts"),
    ],
    ids=shown,
)
def test_unchecked_refuses_unknown_and_missing_fields(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(TypeError, match=rf"'{name}'"):
        RouterConfig.unchecked(**fields)


def test_a_checked_copy_of_an_unchecked_configuration_is_checked() -> None:
    config = RouterConfig.unchecked(num_experts=8, top_k=9)
    assert_refused(lambda: replace(config, scale=2.0), "top_k=9 > num_experts=8")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (made(), "top_k"),
        (RouterConfig.unchecked(**ROUTER), "top_k"),
        (Groups(count=2, kept=1), "kept"),
        (Renormalize(), "eps"),
        (RmsNorm(), "eps"),
        (given(), "hidden"),
        (route(made(), given()), "weights"),
        (stages(made(), given()), "scores"),
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

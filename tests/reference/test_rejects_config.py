"""What configurations refuse, and how: one line with the argument, its value and the rule."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from refusals import HUGE, assert_refused, shown

from moe_routing.reference import (
    PRESETS,
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    SharedExpertConfig,
    SharedSlots,
    preset,
)

ROUTER = {"num_experts": 8, "top_k": 2}
UNPRINTABLE = 10**5000


def made(**fields: Any) -> RouterConfig:
    return RouterConfig(**{**ROUTER, **fields})


# --- routers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["num_experts", "top_k"])
@pytest.mark.parametrize(
    ("value", "fragments"),
    [
        (0, [" >= 1 but got 0"]),
        (-1, [" >= 1 but got -1"]),
        (-UNPRINTABLE, ["too long to show"]),
        (True, ["an int", "True", "bool"]),
        (2.0, ["an int", "2.0", "float"]),
        (np.int64(2), ["an int", "int64"]),
        ("2", ["an int", "'2'", "str"]),
        (None, ["an int", "None"]),
        (np.zeros((2, 2)), ["an int", "array([[0., 0.], [0., 0.]])", "ndarray"]),
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
        (HUGE, ["finite", "1000"]),
        (-HUGE, ["finite", "-1000"]),
        (UNPRINTABLE, ["finite", "too long to show"]),
        ("1.0", ["a number", "'1.0'", "str"]),
        (True, ["a number", "True", "bool"]),
        (1j, ["a number", "1j", "complex"]),
        (np.ones((2, 2)), ["a number", "array([[1., 1.], [1., 1.]])", "ndarray"]),
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
    ["tanh", "float64", "", None, 1, ["softmax"], np.array(["input", "x"]), np.array(["softmax"])],
    ids=shown,
)
def test_an_unknown_choice_is_refused_with_all_choices(name: str, choices: str, value: Any) -> None:
    assert_refused(lambda: made(**{name: value}), name, choices, repr(value))


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"top_k": 9}, ["top_k=9 > num_experts=8", "distinct"]),
        ({"logit_softcap": 0.0}, ["logit_softcap > 0 but got 0.0"]),
        ({"logit_softcap": -30.0}, ["logit_softcap > 0 but got -30.0"]),
        ({"score": "identity"}, ["weights_from='scores'", "score='identity'"]),
        (
            {"score": "identity", "weights_from": "masked_scores"},
            ["weights_from='masked_scores'", "score='identity'", "softmax_of_selected"],
        ),
        ({"groups": {"count": 2, "kept": 1}}, ["groups", "a Groups", "{'count': 2", "dict"]),
        ({"groups": 4}, ["groups", "a Groups", "4", "int"]),
        ({"groups": np.zeros((2, 2))}, ["groups", "a Groups", "array", "ndarray"]),
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


# --- groups, normalisations, shared experts and presets -----------------------------------


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"count": 0}, ["Groups.count >= 1 but got 0"]),
        ({"count": 2.0}, ["Groups.count", "an int", "2.0"]),
        ({"count": True}, ["Groups.count", "an int", "True"]),
        ({"kept": 0}, ["Groups.kept >= 1 but got 0"]),
        ({"kept": -1}, ["Groups.kept >= 1 but got -1"]),
        ({"kept": 5}, ["Groups.kept=5 > Groups.count=4"]),
        ({"top": 0}, ["Groups.top >= 1 but got 0"]),
        ({"top": None}, ["Groups.top", "an int", "None"]),
    ],
    ids=shown,
)
def test_groups_that_make_no_sense_are_refused(
    fields: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: Groups(**{"count": 4, "kept": 2, **fields}), *fragments)


@pytest.mark.parametrize(
    "fill",
    [-1.0, math.inf, math.nan, HUGE, "-inf", None, False, 0j, np.zeros(2), np.zeros((2, 2))],
    ids=shown,
)
def test_a_fill_other_than_minus_infinity_and_zero_is_refused(fill: Any) -> None:
    value = re.sub(r"\s+", " ", repr(fill))[:40]
    assert_refused(lambda: Groups(count=4, kept=2, fill=fill), "Groups.fill", "-inf or 0.0", value)


@pytest.mark.parametrize(
    ("make", "name", "bad"),
    [
        (Renormalize, "eps", [-1e-20]),
        (Renormalize, "floor", [-1.0]),
        (Renormalize, "order", [0, 0.0, -1.0]),
        (RmsNorm, "eps", [0.0, -1e-6]),
    ],
    ids=shown,
)
def test_a_normalisation_that_makes_no_sense_is_refused(
    make: type, name: str, bad: list[Any]
) -> None:
    for value in [*bad, math.nan, math.inf, "0", None, True, np.zeros(2)]:
        fragments = f"{make.__name__}.{name}", repr(value)
        assert_refused(lambda value=value: make(**{name: value}), *fragments)


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"kind": "both"}, ["kind", "none, singular, plural, mlp", "'both'"]),
        ({"kind": None}, ["kind", "none, singular, plural, mlp", "None"]),
        ({"kind": "none", "gated": True}, ["gated=True", "kind='none'"]),
        ({"gated": "yes"}, ["gated", "True or False", "'yes'", "str"]),
        ({"gated": None}, ["gated", "True or False", "None"]),
        ({"gated": 1}, ["gated", "True or False", "1", "int"]),
        ({"kind": "none", "gated": 0}, ["gated", "True or False", "0", "int"]),
    ],
    ids=shown,
)
def test_a_shared_expert_that_makes_no_sense_is_refused(
    fields: dict[str, Any], fragments: list[str]
) -> None:
    assert_refused(lambda: SharedExpertConfig(**fields), *fragments)


@pytest.mark.parametrize("name", ["", "xyzzy", None, 3, ["deepseek_v3"], np.zeros(2)], ids=shown)
def test_a_preset_far_from_every_name_is_refused_with_a_few(name: Any) -> None:
    few = f"{', '.join(sorted(PRESETS)[:3])} ... are among {len(PRESETS)} presets"
    assert_refused(lambda: preset(name), repr(name), few, "moe_routing.reference.PRESETS")


def test_a_share_of_every_group_is_refused_where_it_cannot_be() -> None:
    rule = "so write kept=4"
    assert_refused(lambda: Groups(count=4, kept=2, from_each=True), "Groups.kept=2", rule)
    assert_refused(lambda: Groups(count=4, kept=4, from_each=1), "Groups.from_each", "but got 1")
    groups = Groups(count=4, kept=4, from_each=True)
    assert_refused(lambda: made(top_k=6, groups=groups), "top_k=6", "4 groups", "must divide top_k")
    assert made(top_k=4, groups=groups).groups == groups


def test_shared_slots_that_make_no_sense_are_refused() -> None:
    assert_refused(lambda: SharedSlots(count=0), "SharedSlots.count >= 1", "got 0")
    assert_refused(
        lambda: SharedSlots(count=257), "SharedSlots.count <= 256", "got 257", "a column of every"
    )
    assert SharedSlots(count=256).count == 256
    assert_refused(lambda: SharedSlots(weight=0.0), "SharedSlots.weight", "0.0")
    assert_refused(lambda: made(shared_slots=1), "shared_slots", "SharedSlots", "got 1")
    assert made(shared_slots=SharedSlots()).shared_slots == SharedSlots()

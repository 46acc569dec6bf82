"""What is judged from what: tokens judged by their ids only, and the backend's own logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from verdicts import KINDS, PLAIN, from_logits, router, verdict_on, weights_at, wrong_stages

from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.allowance import allowance_used
from moe_routing.reference import Groups, Renormalize, RouterInputs, route, stages
from moe_routing.reference.formats import FORMATS


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrtsoftplus", "identity"])
def test_a_nan_row_is_held_to_distinct_ids_in_range_and_no_other_row_is_spared(score: str) -> None:
    logits = np.array([[1.0, 2.0, 3.0, 0.0]] * 3)
    logits[1] = np.nan
    config, inputs = router(4, 2, score, renormalize=Renormalize()), from_logits(logits)
    right = stages(config, inputs).expert_ids[0]
    weights = np.full((3, 2), 0.5)
    weights[::2] = stages(config, inputs).weights[0]
    nonsense = np.where(np.arange(3)[:, None] == 1, [[np.nan, -7.0]], weights)
    for ids, wrong in (
        ([right, [3, 0], right], []),
        ([right, [3, 3], right], ["distinct"]),
        ([right, [3, 4], right], ["in_range"]),
        ([right, [-1, 0], right], ["in_range"]),
        ([[3, 0], right, right], ["selection", "weights"]),
    ):
        verdict = verdict_on(config, inputs, ids, nonsense, np.full((3, 4), np.nan), "none")
        expected = [*wrong[:1], "logits", *wrong[1:]]  # NaN logits of the rows that are judged
        assert wrong_stages(verdict) == expected, f"ids {ids}"
        assert verdict.judged.tolist() == [True, False, True], "one row is a NaN row"


@pytest.mark.parametrize(
    ("score", "source", "row", "judged"),
    [
        ("softmax", "scores", [-np.inf, 0.0], True),
        ("softmax", "scores", [-np.inf, -np.inf], False),
        ("softmax", "scores", [np.inf, 0.0], False),
        ("sigmoid", "scores", [np.inf, -np.inf], True),
        ("sigmoid", "softmax_of_selected", [np.inf, 0.0], False),
        ("sqrtsoftplus", "scores", [-np.inf, -np.inf], True),
        ("sqrtsoftplus", "scores", [np.inf, 0.0], False),
        ("identity", "sigmoid_of_selected", [np.inf, -np.inf], True),
        ("identity", "softmax_of_selected", [-np.inf, -np.inf], False),
    ],
)
def test_rows_with_infinite_logits_are_judged_where_their_scores_are_defined(
    score: str, source: str, row: list[float], judged: bool
) -> None:
    inputs = RouterInputs(
        hidden=np.zeros((1, 1), np.float32),
        gate_weight=np.zeros((2, 1), np.float32),
        gate_bias=np.array(row, np.float32),
    )
    config = router(2, 1, score, weights_from=source)
    bounds = Bounds(config, inputs, PLAIN)
    assert bounds.judged.tolist() == [judged], f"{score} of {row} for {source}"
    done = route(config, inputs)
    assert verdict_on(config, inputs, done.expert_ids).right, "the reference is refused"


def test_infinite_hidden_states_are_judged_for_ids_only() -> None:
    inputs = RouterInputs(
        hidden=np.array([[np.inf, 1.0], [1.0, 2.0], [3e38, 3e38]], np.float32),
        gate_weight=np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32),
    )
    assert Bounds(router(3, 1), inputs, PLAIN).judged.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("axes", "logits", "dtype"),
    [
        ({"logit_multiplier": 2.0}, [3e38, 1.0, 0.0, 1.0], "float32"),
        ({}, [3e38, 1.0, 0.0, 1.0], "float32"),  # exp2 of 3e38 log2(e)
        ({"scores_dtype": "input", "logit_multiplier": 3.0}, [3e4, 0.0, 1.0, 2.0], "float16"),
        ({"score": "identity", "groups": Groups(count=2, kept=1)}, [2e38, 2e38, 0, 1], "float32"),
        ({"selection_bias": [3e38, 0, 0, 0], "score": "identity"}, [3e38, 1, 2, 3], "float32"),
    ],
)
def test_a_logit_op_that_overflows_leaves_ids_only(
    axes: dict[str, Any], logits: list[float], dtype: str
) -> None:
    axes, form = dict(axes), FORMATS[dtype]
    bias = {"selection_bias": np.float32(axes.pop("selection_bias", np.zeros(4)))}
    config = router(4, 1, axes.pop("score", "softmax"), **axes)
    large, small = form.round([logits]), form.round([[4.0, 3.0, 2.0, 1.0]])
    inputs = from_logits(np.concatenate([large, small]), dtype=dtype, **bias)
    assert Bounds(config, inputs, PLAIN).judged.tolist() == [False, True], "only one overflows"
    weights = [[np.nan], weights_at(config, inputs, np.zeros((2, 1), np.int64))[1]]
    assert verdict_on(config, inputs, [[3], [0]], weights).right, "NaN from an overflow is refused"


def test_a_softcap_saturates_before_it_overflows() -> None:
    config = router(2, 1, "sigmoid", logit_multiplier=2.0, logit_softcap=30.0)
    inputs = from_logits([[3e38, 1.0]])
    assert Bounds(config, inputs, PLAIN).judged.all(), "30 tanh(inf) is 30"
    assert verdict_on(config, inputs, [[0]], [[1.0]]).right, "a saturated score is refused"


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "identity"])
def test_an_empty_batch_is_right(score: str) -> None:
    inputs = RouterInputs(
        hidden=np.zeros((0, 3), np.float32), gate_weight=np.ones((4, 3), np.float32)
    )
    nothing = np.zeros((0, 2))
    for groups in (None, Groups(count=2, kept=1, fill=0.0)):
        config = router(4, 2, score, groups=groups)
        for kind in KINDS:
            verdict = verdict_on(
                config, inputs, nothing.astype(np.int64), nothing, np.zeros((0, 4)), kind
            )
            assert verdict.right, f"{wrong_stages(verdict)} of nothing is wrong"
            assert allowance_used(verdict) == 0.0, "nothing used something"


def test_ids_that_are_out_of_range_spoil_nothing_but_their_own_stage() -> None:
    config, inputs = router(4, 2), from_logits([[1.0, 2.0, 3.0, 0.0]] * 2)
    right = stages(config, inputs)
    for bad in (-1, 4, 2**40, -(2**40)):
        verdict = verdict_on(config, inputs, [[2, bad], [2, 1]], right.weights)
        assert wrong_stages(verdict) == ["in_range"], f"id {bad}"
        assert verdict.in_range.tolist() == [False, True], f"id {bad}"


# --- the backend's own logits ---------------------------------------------------------------------


def test_routed_logits_decide_the_later_stages_and_a_copy_does_not() -> None:
    # gate rows 0 and 1 differ by one ulp of one weight: a float32 sum may put either first
    rng = np.random.default_rng(12)
    gate = rng.normal(size=(3, 64)).astype(np.float32)
    gate[1] = gate[0]
    gate[1, 0] = np.nextafter(gate[0, 0], np.float32(np.inf))
    gate[2] = -gate[0]
    inputs = RouterInputs(hidden=gate[:1].copy(), gate_weight=gate)
    config = router(3, 1, renormalize=Renormalize())
    permitted = Bounds(config, inputs, PLAIN).logits.permitted
    own = [[permitted.lo[0, 0], permitted.hi[0, 1], permitted.lo[0, 2]]]
    for kind, may_trail in (("routed", False), ("copy", True), ("none", True)):
        leading = verdict_on(config, inputs, [[1]], own=own, logits=kind)
        assert leading.right, f"{wrong_stages(leading)} of expert 1, which leads, logits={kind!r}"
        trailing = verdict_on(config, inputs, [[0]], own=own, logits=kind)
        assert trailing.logits is not None, "returned logits are judged, whatever they are"
        assert trailing.logits.all(), f"these logits are permitted, logits={kind!r}"
        assert trailing.selection.all() == may_trail, (
            f"expert 0 trails in these logits, but not in all that are permitted: logits={kind!r}"
        )


def test_weights_follow_the_logits_that_were_routed() -> None:
    # bfloat16 logits may be a 256th off; weights that fit the exact ones fit no routed ones
    config = router(2, 2, "sigmoid", logits_dtype="input")
    hidden = np.array([[1.0, 1.0 + 2.0**-7]], np.float32)
    gate = np.array([[1.0, 1.0 + 2.0**-7], [0.5, 1.0]], np.float32)
    inputs = RouterInputs(hidden=hidden, gate_weight=gate, dtype="bfloat16")
    exact = stages(config, inputs).logits
    own = FORMATS["bfloat16"].round(exact)
    assert (own != exact).any(), "the rounding is exact: this test saw nothing"
    ids = [[0, 1]]
    fits = 1 / (1 + np.exp(-own))
    for kind, weights, right in (
        ("routed", fits, True),
        ("copy", fits, True),
        ("routed", 1 / (1 + np.exp(-exact)), False),
        ("copy", 1 / (1 + np.exp(-exact)), True),
    ):
        verdict = verdict_on(config, inputs, ids, weights, own, kind)
        assert verdict.weights.all() == right, f"logits={kind!r}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_own_logits_that_are_not_finite_fall_back_to_the_interval(value: float) -> None:
    config, inputs = router(3, 1), from_logits([[3.0, 1.0, 0.0]])
    own = np.array([[value, 1.0, 0.0]])
    right = verdict_on(config, inputs, [[0]], own=own, logits="routed")
    assert wrong_stages(right) == ["logits"], "only the logit itself is wrong"
    assert right.logits is not None
    assert right.logits.tolist() == [[False, True, True]], "only the logit itself is wrong"
    assert not verdict_on(config, inputs, [[1]], own=own, logits="routed").selection.all()


def test_minus_infinity_from_a_linear_bias_is_a_right_logit() -> None:
    config, inputs = router(3, 1), from_logits([[3.0, 1.0, -np.inf]])
    for kind in ("routed", "copy"):
        verdict = verdict_on(config, inputs, [[0]], own=[[3.0, 1.0, -np.inf]], logits=kind)
        assert verdict.right, f"{wrong_stages(verdict)}, logits={kind!r}"
        wrong = verdict_on(config, inputs, [[0]], own=[[3.0, 1.0, -1e30]], logits=kind)
        assert wrong_stages(wrong) == ["logits"], "a finite number for -inf"

"""The verdict as a whole: what is judged from what, what is not judged, and what is reported."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from moe_routing.conformance.case import Case
from moe_routing.conformance.generators.strategies import routing_cases
from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.conformance.judge.allowance import logits_used, weights_used
from moe_routing.implementations import Numerics
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs, route, stages
from moe_routing.reference.formats import FORMATS
from moe_routing.reference.weights import gather_weights, renormalize, scale

Array = np.ndarray
PLAIN = Numerics()
KINDS = ("routed", "copy", "none")


def router(experts: int, top_k: int, score: str = "softmax", **axes: Any) -> RouterConfig:
    if score == "identity":
        axes.setdefault("weights_from", "softmax_of_selected")
    return RouterConfig(num_experts=experts, top_k=top_k, score=score, **axes)


def from_logits(logits: Any, **arrays: Any) -> RouterInputs:
    return RouterInputs.from_logits(np.asarray(logits, dtype=np.float32), **arrays)


def weights_at(config: RouterConfig, inputs: RouterInputs, ids: Array) -> Array:
    """The reference's weights at any ids."""
    done, ids = stages(config, inputs), np.clip(ids, 0, config.num_experts - 1)
    with np.errstate(all="ignore"):
        gathered = gather_weights(config, done.operated, done.scores, done.kept, ids)
        return scale(config, inputs, renormalize(config.renormalize, gathered), ids)


def verdict_on(
    config: RouterConfig,
    inputs: RouterInputs,
    ids: Any,
    weights: Any = None,
    own: Any = None,
    logits: Literal["routed", "copy", "none"] = "none",
) -> Verdict:
    """Judge ``ids``, with the reference's weights at them unless others are given."""
    bounds, ids = Bounds(config, inputs, PLAIN), np.asarray(ids)
    weights = weights_at(config, inputs, ids) if weights is None else weights
    own = None if own is None else np.asarray(own, dtype=np.float64)
    answer = Answer(weights=np.asarray(weights, dtype=np.float64), expert_ids=ids, logits=own)
    return judge(bounds, answer, logits=logits)


def wrong_stages(verdict: Verdict) -> list[str]:
    names = ("distinct", "in_range", "selection", "logits", "weights")
    found = {name: getattr(verdict, name) for name in names}
    return [name for name, fine in found.items() if fine is not None and not fine.all()]


# --- the reference is always right ----------------------------------------------------------


def check_reference(case: Case) -> None:
    bounds, done = Bounds(case.config, case.inputs, PLAIN), route(case.config, case.inputs)
    answer = Answer(weights=done.weights, expert_ids=done.expert_ids, logits=done.logits)
    for kind in KINDS:
        verdict = judge(bounds, answer, logits=kind)
        assert verdict.right, (
            f"the reference is wrong at {wrong_stages(verdict)}, logits={kind!r}: {case.config} "
            f"{case.size} {case.recipe} {case.inputs.dtype}"
        )
        assert verdict.allowance_used == 0.0, f"exact values used {verdict.allowance_used}"


@seed(2026)
@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(routing_cases())
def test_the_reference_is_right_on_every_generated_case_and_uses_no_allowance(case: Case) -> None:
    check_reference(case)


@seed(2027)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(routing_cases())
def test_where_only_the_reference_is_right_every_other_set_is_wrong(case: Case) -> None:
    bounds = Bounds(case.config, case.inputs, PLAIN)
    alone = bounds.only_reference
    if case.config.top_k == case.config.num_experts or not alone.any():
        return
    ids = bounds.reference.expert_ids.copy()
    ids[:, -1] = [min(set(range(case.config.num_experts)) - set(row)) for row in ids.tolist()]
    if case.inputs.expert_table is not None:
        ids[:, -1] = (bounds.reference.expert_ids[:, -1] + 1) % case.config.num_experts
        alone = np.sort(ids, axis=1) != np.sort(bounds.reference.expert_ids, axis=1)
        alone = alone.any(axis=1) & (np.diff(np.sort(ids, axis=1), axis=1) > 0).all(axis=1)
    verdict = verdict_on(case.config, case.inputs, ids)
    assert not verdict.selection[alone].any(), (
        f"token {np.argmax(verdict.selection & alone)} has one right set, and another is accepted"
    )


def random_cases(count: int) -> list[tuple[RouterConfig, RouterInputs]]:
    """Cases with infinities, extremes and every score, beside those of the strategies."""
    rng = np.random.default_rng(11)
    extremes = np.array([0.0, 1e30, -1e30, 88.7, -104.0, 1e-40, 3e38, -3e38, 1.0, -1.0])
    cases = []
    for i in range(count):
        score = ("softmax", "sigmoid", "sqrtsoftplus", "identity")[i % 4]
        rule = (None, Renormalize(), Renormalize(eps=1e-20), Renormalize(order=2.0))[i // 4 % 4]
        groups = (None, Groups(count=2, kept=1), Groups(count=3, kept=2, fill=0.0))[i // 16 % 3]
        bias = rng.choice([0.5, -0.5, -np.inf, 1e30], 6) if i % 2 else None
        gate_bias = rng.choice([0.0, -np.inf, 1.0], 6) if i % 3 == 0 else None
        inputs = RouterInputs(
            hidden=rng.choice(extremes, (4, 6)).astype(np.float32),
            gate_weight=np.eye(6, dtype=np.float32),
            gate_bias=None if gate_bias is None else gate_bias.astype(np.float32),
            selection_bias=None if bias is None else bias.astype(np.float32),
        )
        axes: dict[str, Any] = {"groups": groups, "renormalize": rule}
        axes["scale"] = (1.0, -2.0, 0.0)[i % 3]
        axes["logit_softcap"] = 30.0 if i % 5 == 0 else None
        axes["logit_multiplier"] = (1.0, -1.0, 0.0)[i // 5 % 3]
        if i % 7 == 0:
            axes["weights_from"] = "sigmoid_of_selected"
        cases.append((router(6, 1 + i % 3, score, **axes), inputs))
    return cases


def test_extreme_and_infinite_values_never_make_the_judge_itself_fail() -> None:
    judged = 0
    for config, inputs in random_cases(1200):
        bounds, done = Bounds(config, inputs, PLAIN), stages(config, inputs)
        answer = Answer(weights=done.weights, expert_ids=done.expert_ids, logits=done.logits)
        for kind in KINDS:
            verdict = judge(bounds, answer, logits=kind)
            assert verdict.right, (
                f"the reference is wrong at {wrong_stages(verdict)}, logits={kind!r}: {config} "
                f"{inputs.arrays()}"
            )
        with np.errstate(invalid="ignore"):  # inf - inf in group sums that are not judged
            assert bounds.only_reference.shape == (4,), "one answer a token"
        judged += int(bounds.judged.sum())
    assert judged > 2000, f"only {judged} tokens were judged: this test saw little"


def test_a_group_sum_of_both_infinities_makes_a_nan_row() -> None:
    axes = {"weights_from": "sigmoid_of_selected", "groups": Groups(count=2, kept=1)}
    config = router(4, 1, "identity", **axes)
    inputs = RouterInputs(
        hidden=np.zeros((1, 3), np.float32),
        gate_weight=np.zeros((4, 3), np.float32),
        gate_bias=np.array([np.inf, -np.inf, 0.0, 0.0], np.float32),
    )
    for expert in range(4):
        assert verdict_on(config, inputs, [[expert]]).right, f"expert {expert} is refused"


# --- what is not judged ---------------------------------------------------------------------


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
            assert verdict.allowance_used == 0.0, "nothing used something"


def test_ids_that_are_out_of_range_spoil_nothing_but_their_own_stage() -> None:
    config, inputs = router(4, 2), from_logits([[1.0, 2.0, 3.0, 0.0]] * 2)
    right = stages(config, inputs)
    for bad in (-1, 4, 2**40, -(2**40)):
        verdict = verdict_on(config, inputs, [[2, bad], [2, 1]], right.weights)
        assert wrong_stages(verdict) == ["in_range"], f"id {bad}"
        assert verdict.in_range.tolist() == [False, True], f"id {bad}"


# --- hash routing ---------------------------------------------------------------------------


def hashed(*rows: list[int]) -> tuple[RouterConfig, RouterInputs]:
    config = router(4, len(rows[0]), "sigmoid", renormalize=Renormalize())
    table = np.array(rows)
    inputs = from_logits(
        [[0.5, -0.25, 1.0, 2.0]] * len(rows), expert_table=table, token_ids=np.arange(len(rows))
    )
    return config, inputs


def test_hash_routing_permits_the_row_of_the_table_in_any_order_duplicates_included() -> None:
    config, inputs = hashed([0, 0, 1], [3, 2, 1], [2, 2, 2])
    for ids in ([[0, 0, 1], [3, 2, 1], [2, 2, 2]], [[1, 0, 0], [1, 2, 3], [2, 2, 2]]):
        verdict = verdict_on(config, inputs, ids)
        assert verdict.right, f"ids {ids}: {wrong_stages(verdict)}"
        assert np.allclose(verdict.answer.weights.sum(axis=1), 1.0), "sums over slots"


def test_hash_routing_refuses_other_distinct_experts() -> None:
    config, inputs = hashed([3, 2, 1], [0, 1, 2])
    verdict = verdict_on(config, inputs, [[3, 2, 0], [0, 1, 2]])
    assert verdict.selection.tolist() == [False, True], "expert 0 for expert 1"
    assert "in_range" in wrong_stages(verdict_on(config, inputs, [[3, 2, 4], [0, 1, 2]]))


@pytest.mark.parametrize("ids", [[3, 3, 3], [3, 3, 2], [3, 2, 2]])
def test_hash_routing_refuses_repeated_experts_that_the_table_does_not_repeat(
    ids: list[int],
) -> None:
    config, inputs = hashed([3, 2, 1])
    assert not verdict_on(config, inputs, [ids]).right, f"ids {ids} for the row [3, 2, 1]"


def test_hash_routing_refuses_the_wrong_repetition() -> None:
    config, inputs = hashed([0, 0, 1])
    assert not verdict_on(config, inputs, [[0, 1, 1]]).right, "expert 1 twice for expert 0 twice"


# --- the backend's own logits ---------------------------------------------------------------


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


# --- the allowance --------------------------------------------------------------------------


def test_honest_bfloat16_uses_little_beyond_its_forced_rounding() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(13)
    form = FORMATS["bfloat16"]
    draw = {"hidden": rng.normal(size=(40, 64)), "gate_weight": rng.normal(size=(16, 64))}
    arrays = {name: form.round(array).astype(np.float32) for name, array in draw.items()}
    inputs = RouterInputs(dtype="bfloat16", **arrays)
    axes = {"logits_dtype": "input", "weights_dtype": "input", "renormalize": Renormalize()}
    config = router(16, 4, **axes)
    x, w = (torch.tensor(arrays[name]).bfloat16() for name in ("hidden", "gate_weight"))
    logits = torch.nn.functional.linear(x, w)
    weights, ids = torch.softmax(logits.float(), dim=1).topk(4, dim=1)
    weights = (weights / weights.sum(dim=1, keepdim=True)).bfloat16()
    answer = Answer(
        weights=weights.double().numpy(),
        expert_ids=ids.numpy(),
        logits=logits.double().numpy(),
        weights_dtype="bfloat16",
        logits_dtype="bfloat16",
    )
    bounds = Bounds(config, inputs, PLAIN)
    verdict = judge(bounds, answer, logits="routed")
    assert verdict.right, f"{wrong_stages(verdict)} of honest bfloat16 is wrong"
    error = np.abs(answer.logits - bounds.logits.reference)
    raw = (error / (bounds.logits.permitted.hi - bounds.logits.reference)).max()
    assert raw > 0.8, f"the raw share is {raw:.3g}: nothing to explain"
    assert logits_used(verdict) < 0.5, f"logits use {logits_used(verdict):.3g}"
    assert weights_used(verdict) <= 1.0, f"weights use {weights_used(verdict):.3g}"
    most = max(logits_used(verdict), weights_used(verdict))
    assert verdict.allowance_used == most, "the allowance used is not the larger of the two"


def test_an_answer_beyond_its_bound_uses_more_than_all_of_it() -> None:
    config, inputs = router(3, 2, "sigmoid"), from_logits([[3.0, 1.0, 0.0]])
    done = stages(config, inputs)
    off = verdict_on(config, inputs, done.expert_ids, done.weights * 1.01, done.logits + 0.01)
    assert wrong_stages(off) == ["logits", "weights"]
    assert logits_used(off) > 1, f"wrong logits use {logits_used(off)}"
    assert weights_used(off) > 1, f"wrong weights use {weights_used(off)}"


def test_the_allowance_ignores_what_is_not_judged_or_not_finite() -> None:
    config = router(3, 2, "sigmoid", renormalize=Renormalize())
    inputs = RouterInputs(
        hidden=np.array([[1.0, 0.0], [np.nan, 0.0], [-130.0, -130.0]], np.float32),
        gate_weight=np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32),
        gate_bias=np.array([0.0, 0.0, -np.inf], np.float32),
    )
    done = route(config, inputs)
    weights = done.weights.copy()
    weights[1], weights[2] = 99.0, [1.0, 0.0]
    own = done.logits.copy()
    own[1] = 99.0
    verdict = verdict_on(config, inputs, done.expert_ids, weights, own, "copy")
    assert verdict.right, f"{wrong_stages(verdict)} is wrong"
    assert verdict.decided.tolist()[::2] == [True, False], "the last norm may be 0"
    used = verdict.allowance_used
    assert used == 0.0, f"used {used} where nothing is held to anything"

"""The verdict as a whole: the reference is right, whatever the case; and hash routing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from verdicts import KINDS, PLAIN, from_logits, router, verdict_on, wrong_stages

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.strategies import routing_cases
from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.conformance.judge.allowance import allowance_used
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs, route, stages


def check_reference(case: Case) -> None:
    bounds, done = Bounds(case.config, case.inputs, PLAIN), route(case.config, case.inputs)
    answer = Answer(weights=done.weights, expert_ids=done.expert_ids, logits=done.logits)
    for kind in KINDS:
        verdict = judge(bounds, answer, logits=kind)
        assert verdict.right, (
            f"the reference is wrong at {wrong_stages(verdict)}, logits={kind!r}: {case.config} "
            f"{case.size} {case.recipe} {case.inputs.dtype}"
        )
        assert allowance_used(verdict) == 0.0, f"exact values used {verdict.allowance_used}"


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
    """Cases with infinities, extremes and every score, besides those of the strategies."""
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


# --- hash routing ---------------------------------------------------------------------------------


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


def test_a_table_holds_for_tokens_that_have_no_scores() -> None:
    config, table = router(4, 2), np.array([[3, 1], [0, 0]])
    nothing = np.full((2, 4), np.nan)
    inputs = from_logits(nothing, expert_table=table, token_ids=np.arange(2))
    assert not Bounds(config, inputs, PLAIN).judged.any(), "a NaN row is judged"
    for ids, right in (([[3, 1], [0, 0]], [True, True]), ([[3, 2], [0, 1]], [False, False])):
        verdict = verdict_on(config, inputs, ids, nothing[:, :2])
        assert verdict.selection.tolist() == right, f"ids {ids} for the rows {table.tolist()}"


@pytest.mark.parametrize("field", ["scale", "logit_multiplier"])
def test_a_factor_may_be_an_integer_of_any_size(field: str) -> None:
    config = RouterConfig(num_experts=3, top_k=2, **{field: 10**30})
    inputs = RouterInputs(
        hidden=np.float32([[0.5], [0.0]]), gate_weight=np.float32([[1.0], [0.0], [-1.0]])
    )
    check_reference(Case(config=config, inputs=inputs))

"""Dense answers: a selected expert of weight 0 does not show, and is found where one may be."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Case, Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.judge import Answer, Bounds, Verdict, judge
from moe_routing.conformance.judge.hidden import HIDDEN, revealed
from moe_routing.conformance.judge.selection import chosen_mask, may_select
from moe_routing.conformance.judge.verdict import later_of
from moe_routing.conformance.judge.weights import weight_bounds
from moe_routing.conformance.trial.boundary import Malformed, receive
from moe_routing.conformance.trial.trial import Trial
from moe_routing.conformance.zoo import HONEST
from moe_routing.conformance.zoo.router.router import StagedRouter
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Capabilities, Claim, DenseRouting, Numerics
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs

LLAMA: dict[str, Any] = {"score": "identity", "weights_from": "sigmoid_of_selected"}
SHOWS, LIES = 2.0, -120.0  # a sigmoid of the second is 0 in float32


def judged(logits: Any, weights: Any, top_k: int = 2, bias: Any = None, **config: Any) -> Verdict:
    """Judge a dense answer to these logits."""
    given = None if bias is None else np.float32(bias)
    inputs = RouterInputs.from_logits(np.float32(np.atleast_2d(logits)), selection_bias=given)
    settings = RouterConfig(num_experts=inputs.num_experts, top_k=top_k, **(config or LLAMA))
    case = Case(config=settings, inputs=inputs)
    raw = DenseRouting(weights=np.float32(np.atleast_2d(weights)))
    received = receive(raw, case.config, inputs.num_tokens, hides=True)
    bounds = Bounds(case.config, case.inputs, Numerics())
    return judge(bounds, revealed(bounds, received.answer, routed=False))


SIGMOID = 1.0 / (1.0 + np.exp(-SHOWS))


@pytest.mark.parametrize("other", [1, 2])
def test_of_members_that_tie_one_is_found_whose_norm_explains_what_shows(other: int) -> None:
    """Their sigmoids are both 1 and their scales both 0, but one has more of the softmax."""
    logits = [40.0, 40.0, 41.0]
    inputs = RouterInputs.from_logits(
        np.float32([logits]), per_expert_scale=np.float32([1.0, 0.0, 0.0])
    )
    config = RouterConfig(
        num_experts=3, top_k=2, score="sigmoid", weights_from="softmax_of_selected"
    )
    right = 1.0 / (1.0 + np.exp(logits[other] - logits[0]))
    for weight in (right, 0.4):
        answer = Answer(weights=np.float64([[weight, 0.0]]), expert_ids=np.array([[0, HIDDEN]]))
        bounds = Bounds(config, inputs, Numerics())
        assert judge(bounds, revealed(bounds, answer, routed=False)).right == (weight == right)


def test_what_shows_in_full_is_read_as_it_is() -> None:
    verdict = judged([SHOWS, SHOWS, 0.0, -1.0], [SIGMOID, SIGMOID, 0.0, 0.0])
    assert verdict.right
    assert sorted(verdict.answer.expert_ids[0]) == [0, 1]


def test_a_member_whose_weight_underflows_is_found() -> None:
    verdict = judged([LIES, SHOWS, LIES - 10.0, LIES - 9.0], [0.0, SIGMOID, 0.0, 0.0])
    assert verdict.right
    assert sorted(verdict.answer.expert_ids[0]) == [0, 1]


def test_a_member_is_found_in_the_group_that_shows_where_groups_tie() -> None:
    """The other one of two equal groups was kept than the reference keeps."""
    row, groups = [SHOWS, LIES, SHOWS, LIES - 9.0], Groups(count=2, kept=1, top=1)
    for shows, members in ((0, [0, 1]), (2, [2, 3])):
        weights = np.where(np.arange(4) == shows, SIGMOID, 0.0)
        verdict = judged(row, weights, **LLAMA, groups=groups)
        assert verdict.right
        assert sorted(verdict.answer.expert_ids[0]) == members


def test_a_member_is_found_in_a_kept_group_and_not_in_another() -> None:
    """Beside 300 all scores are 0, and tie; the reference keeps the groups 0 and 1."""
    row = [LIES, LIES, 300.0, 90.0, 90.0, LIES, 90.0, 90.0]
    config = {"weights_from": "sigmoid_of_selected", "groups": Groups(count=4, kept=2, top=1)}
    verdict = judged(row, np.isin(np.arange(8), [2, 4]), top_k=3, **config)
    assert verdict.right
    assert sorted(verdict.answer.expert_ids[0]) == [2, 4, 5]


BY_BIAS: dict[str, Any] = {"score": "sigmoid", "top_k": 2}
FAINT = -20.0  # a sigmoid that is not 0, and vanishes beside a bias of 1


def test_a_member_is_sought_in_the_kept_groups_alone() -> None:
    """The reference's second expert has a weight; another that ties with it has none."""
    groups, bias = Groups(count=2, kept=1, top=1), [10.0, -1.0, -1.0, 0.0, 0.0, 0.0]
    row = [SHOWS, FAINT, LIES, LIES, LIES, LIES]
    verdict = judged(row, [SIGMOID, 0, 0, 0, 0, 0], bias=bias, **BY_BIAS, groups=groups)
    assert verdict.right
    assert sorted(verdict.answer.expert_ids[0]) == [0, 2]


def test_of_groups_that_tie_some_that_weigh_nothing_are_found() -> None:
    groups, bias = Groups(count=4, kept=2, top=1), [1.0, 1.0, 1.0, 0.5, 1.0, 0.75, 1.0, 0.75]
    row = [LIES, LIES, FAINT, FAINT, LIES, LIES, LIES, LIES]
    verdict = judged(row, np.zeros(8), bias=bias, **{**BY_BIAS, "top_k": 4}, groups=groups)
    assert verdict.right
    assert len({expert // 2 for expert in verdict.answer.expert_ids[0].tolist()}) == 2


TIED = (
    None,
    Groups(count=3, kept=2, top=1),
    Groups(count=3, kept=2, top=2, fill=0.0),
    Groups(count=2, kept=1, top=1),
    Groups(count=3, kept=3, from_each=True),
)


@pytest.mark.parametrize("groups", TIED, ids=str)
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_whatever_set_may_be_selected_is_completed(score: Any, groups: Groups | None) -> None:
    """Every set of scores that tie and vanish, by brute force."""
    rng, hidden = np.random.default_rng(7), 0
    top_k = 3
    for _ in range(12):
        row = rng.choice(np.float32([300.0, 90.0, LIES, LIES - 1.0]), (1, 6))
        bias = rng.choice(np.float32([0.0, 0.5, 1.0]), 6)
        inputs = RouterInputs.from_logits(row, selection_bias=bias)
        weights_from = "sigmoid_of_selected" if score == "softmax" else "scores"
        settings: dict[str, Any] = {
            "score": score,
            "weights_from": weights_from,
            "groups": groups,
            "renormalize": Renormalize(eps=1e-6),
        }
        config = RouterConfig(num_experts=6, top_k=top_k, **settings)
        bounds = Bounds(config, inputs, Numerics())
        for members in combinations(range(6), top_k):
            ids = np.array([members])
            later = later_of(bounds, answer_of(ids, np.ones((1, 3))), False)
            chosen = chosen_mask(ids, 6)
            if not may_select(later.competing, chosen, groups, later.group_format).all():
                continue
            permitted = weight_bounds(bounds, later, ids).permitted
            weights = np.where(permitted.contains(np.zeros((1, 3))), 0.0, permitted.hi)
            hidden += int((weights == 0.0).sum())
            found = revealed(bounds, answer_of(ids, weights), routed=False)
            assert judge(bounds, found).right, (row, bias, members, found.expert_ids)
    assert hidden > 10


def answer_of(ids: Any, weights: Any) -> Answer:
    return Answer(weights=weights, expert_ids=np.where(weights == 0.0, HIDDEN, ids), logits=None)


def test_where_scores_tie_a_member_that_weighs_least_is_sought() -> None:
    """All sigmoids are near 1; beside 320 a logit of 200 weighs nothing, and beside 150 all."""
    row = [150.0, 200.0, 320.0, 30.0, 25.0]
    selected = {"score": "sigmoid", "weights_from": "softmax_of_selected"}
    verdict = judged(row, [1.0, 0.0, 0.0, 0.0, 0.0], 3, **selected)
    assert verdict.right
    assert sorted(verdict.answer.expert_ids[0]) == [0, 3, 4]


def test_a_member_that_may_not_weigh_0_is_missed() -> None:
    verdict = judged([1.0, SHOWS, 0.0, -1.0], [0.0, SIGMOID, 0.0, 0.0])
    assert not verdict.weights.all()


def test_a_wrong_expert_that_shows_is_wrong() -> None:
    verdict = judged([1.0, SHOWS, 0.0, LIES], [0.0, SIGMOID, 0.5, 0.0])
    assert not verdict.selection.all()


def test_a_scale_of_0_shows_nothing() -> None:
    assert judged([1.0, SHOWS, 0.0, -1.0], np.zeros(4), **LLAMA, scale=0.0).right
    assert not judged([1.0, SHOWS, 0.0, -1.0], np.zeros(4)).right


def test_each_token_is_completed_by_itself() -> None:
    rows = [[SHOWS, SHOWS, 0.0, 1.0], [LIES, SHOWS, -130.0, -140.0], [0.0, SHOWS, SHOWS, 1.0]]
    weights = [[SIGMOID, SIGMOID, 0, 0], [0, SIGMOID, 0, 0], [0, SIGMOID, SIGMOID, 0]]
    verdict = judged(rows, weights)
    assert verdict.right
    assert [sorted(ids) for ids in verdict.answer.expert_ids.tolist()] == [[0, 1], [0, 1], [1, 2]]


def test_more_than_k_weights_are_refused_with_the_token() -> None:
    with pytest.raises(Malformed, match=r"weights\[0\] has 3 experts with a weight, .* K=2"):
        judged([1.0, SHOWS, 0.0, -1.0], [0.1, 0.2, 0.3, 0.0])


def test_no_other_call_may_hide_a_member() -> None:
    raw = DenseRouting(weights=np.float32([[0.5, 0.0]]))
    with pytest.raises(Malformed, match=r"hides a selected expert .* return Routing or RoutingMap"):
        receive(raw, RouterConfig(num_experts=2, top_k=2), 1)


def dense(w: Work, least: float = 0.0, last_lost: bool = False) -> DenseRouting:
    table = np.zeros((w.num_tokens, w.config.num_experts), np.float32)
    ids, weights = w.expert_ids, np.where(np.abs(w.weights) > least, w.weights, 0)
    np.put_along_axis(
        table, ids[:, : -1 if last_lost else None], weights[:, : -1 if last_lost else None], axis=1
    )
    return DenseRouting(weights=table)


CLAIMS = Capabilities(claims=(Claim.of_preset("llama4_text"), Claim.plain(score=("sigmoid",))))
ROUTERS = {
    "right": (dense, set()),
    "lost below 0.3": (lambda w: dense(w, 0.3), {"weights.match"}),
    "last slot lost": (lambda w: dense(w, last_lost=True), {"weights.match"}),
    "every score kept": (
        lambda w: DenseRouting(weights=w.scores.astype(np.float32)),
        {"layout.well-formed"},
    ),
    "experts shifted": (
        lambda w: DenseRouting(weights=np.roll(dense(w).weights, 1, axis=1)),
        {"selection.valid-top-k"},
    ),
}


@pytest.mark.parametrize("name", ROUTERS)
def test_a_dense_router_fails_where_it_is_wrong_and_nowhere_else(name: str) -> None:
    answer, wrong = ROUTERS[name]
    router = StagedRouter(name, {"answer": answer}, CLAIMS)
    for id_ in wrong or ("layout.well-formed", "weights.match", "robustness.underflow"):
        plan = Plan(clauses=[CLAUSES[id_]], max_examples=2, shrinks=False)
        result = check_clause(router, CLAUSES[id_], plan)
        assert result.status == ("fail" if wrong else "pass"), result.message


def test_an_answer_is_completed_by_the_bounds_that_it_is_judged_as() -> None:
    inputs = RouterInputs.from_logits(
        np.float32([[0.0, -2.0, -1.0]]), selection_bias=np.float32([-0.3, 1.0, 0.0])
    )
    config = RouterConfig(num_experts=3, top_k=2, score="sigmoid", scale=0.0)
    trial = Trial(
        HONEST["dense-without-a-map"].adapter(), Case(config=config, inputs=inputs), "dispatch"
    )
    assert CLAUSES["dispatch.sigmoid-with-bias"].check(trial) is None, "softmax takes another"

"""Selections that the judge must accept or refuse: the counterexamples that shaped its rule."""

from __future__ import annotations

import numpy as np
import pytest
from brute_force import FILLS, INF, mask

from moe_routing.conformance.judge import Answer, Bounds, Interval, judge, may_select, only_selects
from moe_routing.implementations import Numerics
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs
from moe_routing.reference.formats import BFLOAT16, FLOAT32, FORMATS

torch = pytest.importorskip("torch")

FLOAT64 = FORMATS["float64"]


def test_no_tokens_give_no_verdicts() -> None:
    nothing = Interval(np.zeros((0, 4)), np.zeros((0, 4)))
    for groups in (None, Groups(count=2, kept=1, fill=0.0), Groups(count=2, kept=1)):
        none = np.zeros((0, 4), dtype=bool)
        assert may_select(nothing, none, groups, FLOAT64).shape == (0,), f"under {groups}"
        assert only_selects(nothing, none, groups, FLOAT64).shape == (0,), f"under {groups}"


def test_a_group_cannot_be_high_by_an_expert_that_must_stay_below_the_cut() -> None:
    # the obvious rule judges experts and groups apart, and accepts this
    values = Interval(np.array([[1.0, 1.5, 2.4, 2.4]]), np.array([[2.0, 3.0, 2.4, 2.4]]))
    groups = Groups(count=2, kept=1)
    assert not may_select(values, mask(4, 0), groups, FLOAT64).any(), (
        "expert 0 wins only with expert 1 at 2 or below, and then its group scores 4 < 4.8"
    )
    assert may_select(values, mask(4, 1), groups, FLOAT64).all(), "expert 1 at 3 wins fairly"
    assert may_select(values, mask(4, 2), groups, FLOAT64).all(), "group 1 may score more"


def deepseek_v3(logits: np.ndarray, bias: np.ndarray, groups: Groups, top_k: int):
    """Select as ``DeepseekV3TopkRouter`` of transformers 5.23.0 does: excluded experts at -inf."""
    scores = torch.tensor(logits, dtype=torch.float32).sigmoid()
    choice = scores + torch.tensor(bias, dtype=torch.float32)
    grouped = choice.view(len(choice), groups.count, -1)
    best = grouped.topk(2, dim=-1)[0].sum(dim=-1).topk(groups.kept, dim=-1, sorted=False)[1]
    kept = torch.zeros_like(grouped[:, :, 0]).scatter_(1, best, 1).bool()
    kept = kept.unsqueeze(-1).expand_as(grouped).reshape_as(choice)
    ids = choice.masked_fill(~kept, groups.fill).topk(top_k, dim=-1, sorted=False)[1]
    weights = scores.gather(1, ids)
    weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return ids.numpy(), weights.double().numpy()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("finite_in_group", [2, 3])
def test_deepseek_v3_with_a_kept_group_of_mostly_minus_infinity_is_right(
    fill: float, finite_in_group: int
) -> None:
    # the kept group has fewer finite scores than K: the rest tie with excluded experts, so
    # the chosen set may reach outside the kept groups
    rng = np.random.default_rng(finite_in_group)
    groups, top_k = Groups(count=4, kept=1, fill=fill), 4
    logits = rng.normal(size=(200, 16)).astype(np.float32)
    bias = np.full(16, -INF, dtype=np.float32)
    for group in range(4):
        bias[4 * group : 4 * group + finite_in_group] = rng.normal(size=finite_in_group) * 0.1
    rule = Renormalize(eps=1e-20)
    config = RouterConfig(
        num_experts=16, top_k=top_k, score="sigmoid", groups=groups, renormalize=rule
    )
    inputs = RouterInputs.from_logits(logits, selection_bias=bias)
    ids, weights = deepseek_v3(logits, bias, groups, top_k)
    verdict = judge(Bounds(config, inputs, Numerics()), Answer(weights=weights, expert_ids=ids))
    outside = (ids // 4 != ids[:, :1] // 4).any()
    assert outside, "no token reached outside a group: this test saw nothing"
    assert verdict.right, (
        f"transformers' own router is refused for tokens {np.flatnonzero(~verdict.selection)[:5]}"
    )


def test_a_finite_score_may_not_be_passed_over_for_minus_infinity() -> None:
    row = np.array([[0.5, 0.25, -INF, -INF, 0.1, 0.1, 0.1, 0.1]])
    groups = Groups(count=2, kept=1)
    for ids, right in (((0, 1), True), ((0, 2), False), ((0, 4), False), ((2, 3), False)):
        said = may_select(Interval.point(row), mask(8, *ids), groups, FLOAT64)
        assert said.all() == right, f"ids {ids} with scores {row.tolist()}"


def test_a_masked_expert_loses_next_to_a_bound_that_overflowed() -> None:
    row = Interval(np.array([[-INF, 0.0]]), np.array([[-INF, INF]]))
    for ids, right in (((1,), True), ((0,), False)):
        said = may_select(row, mask(2, *ids), Groups(count=1, kept=1), FLOAT64)
        assert said.all() == right, f"ids {ids}"


def test_an_excluded_expert_wins_by_a_zero_fill_only_over_negative_scores() -> None:
    row = np.array([[-0.5, -0.25, -0.75, -1.0]])
    wins = {
        fill: [
            e
            for e in range(4)
            if may_select(
                Interval.point(row), mask(4, e), Groups(count=2, kept=1, fill=fill), FLOAT64
            ).all()
        ]
        for fill in FILLS
    }
    assert wins == {-INF: [1], 0.0: [2, 3]}, f"the permitted single experts, by fill: {wins}"


def test_the_rounding_of_a_group_sum_widens_only_the_comparison_of_groups() -> None:
    # 1 + 2**-8 and 1 are apart by half a bfloat16 step once summed with 1
    row = Interval.point(np.array([[1.0, 1.0, 1.0 + 2.0**-8, 1.0]]))
    groups = Groups(count=2, kept=1)
    assert may_select(row, mask(4, 0), groups, BFLOAT16).all(), "bfloat16 sums may tie"
    assert not may_select(row, mask(4, 0), groups, FLOAT32).any(), "float32 sums do not"
    one = Groups(count=2, kept=1, top=1)
    assert not may_select(row, mask(4, 0), one, BFLOAT16).any(), "a maximum does not round"
    assert not may_select(row, mask(4, 3), groups, BFLOAT16).any(), "experts do not round again"

"""The judge's selection rule against brute force: neither a false alarm nor a hole.

Brute force takes every vector of scores on a grid inside the intervals, every set of kept
groups that its ties allow and every chosen set that its ties allow, and collects the chosen
sets that occur. ``may_select`` must accept those and no others.

Why a grid is enough, in both directions. What is attained on the grid is attained, so
brute force never claims too much. Conversely let scores v select S with kept groups G. Raise
the chosen experts of G to ``hi``: the least chosen score and the scores of G's groups can
only grow. Lower every expert outside G to ``lo``: it competes at the fill anyway, and its
group's score can only fall. Raise the other experts of G to ``hi`` or to the least chosen
score, whichever is less: they still lose or tie, and G's groups only gain. The new vector still
selects S with G, and each of its numbers is an endpoint of an interval or the fill. So a grid
that holds all endpoints and the fill (here every endpoint is a grid value, and so is 0)
misses nothing: the comparison is exact, not sampled, for every box of intervals that is
tried. Sums of grid values are exact in float64, and distinct ones differ by far more than
the rounding that a float64 group sum is allowed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest

from moe_routing.conformance.judge import Answer, Bounds, Interval, judge, may_select, only_selects
from moe_routing.conformance.judge.selection import certain_groups, possible_groups
from moe_routing.implementations import Numerics
from moe_routing.reference import Groups, Renormalize, RouterConfig, RouterInputs
from moe_routing.reference.formats import BFLOAT16, FLOAT32, FORMATS

torch = pytest.importorskip("torch")

FLOAT64 = FORMATS["float64"]
INF = math.inf
FILLS = (-INF, 0.0)
FIVE = (-INF, -1.0, 0.0, 1.0, 2.0)
THREE = [(-INF, 0.0, 1.0), (-1.0, 0.0, 1.0), (-2.0, -1.0, 0.0)]


def every_group_rule(experts: int, top_k: int) -> list[Groups | None]:
    """No groups, then every legal rule of 1, 2 or 3 groups, top 1 or 2, either fill."""
    rules: list[Groups | None] = [None]
    for count in (1, 2, 3):
        if experts % count:
            continue
        rules += [
            Groups(count=count, kept=kept, top=top, fill=fill)
            for kept in range(1, count + 1)
            if top_k <= kept * experts // count
            for top in (1, 2)
            for fill in FILLS
        ]
    return rules


def shown(rule: Groups | None) -> str:
    return f"{rule.kept}of{rule.count}top{rule.top}fill{rule.fill}" if rule else "ungrouped"


STRUCTURES = [
    pytest.param(
        experts,
        top_k,
        rule,
        id=f"E{experts}-K{top_k}-{shown(rule)}",
    )
    for experts in (2, 3, 4, 6)
    for top_k in range(1, experts + 1)
    for rule in every_group_rule(experts, top_k)
]


@dataclass(frozen=True)
class Attained:
    """Every vector of ``values`` for E experts, and the chosen sets that each one allows.

    ``sets [C, E]`` lists the candidate sets; ``points``, of one axis an expert, holds for
    each vector a bit mask of the sets that it allows. A box is an interval for each expert,
    with values for endpoints: ``ends [N, E, 2]``, as indices into ``values``.
    """

    values: tuple[float, ...]
    sets: np.ndarray
    points: np.ndarray

    def boxes(self, most: int, rng: np.random.Generator) -> np.ndarray:
        """Every box where there are at most ``most``, else that many at random."""
        pairs = [(lo, hi) for hi in range(len(self.values)) for lo in range(hi + 1)]
        shape = (len(pairs),) * self.points.ndim
        total = math.prod(shape)
        numbers = np.arange(total) if total <= most else rng.integers(0, total, most)
        return np.asarray(pairs)[np.stack(np.unravel_index(numbers, shape), axis=1)]

    def rows(self, ends: np.ndarray) -> tuple[Interval, np.ndarray, np.ndarray]:
        """Intervals and chosen masks ``[N * C, E]``, and which of them brute force attains."""
        inside = (tuple(slice(lo, hi + 1) for lo, hi in box) for box in ends.tolist())
        masks = np.array([np.bitwise_or.reduce(self.points[box], axis=None) for box in inside])
        truth = (masks[:, None] >> np.arange(len(self.sets))) & 1
        lo, hi = np.repeat(np.asarray(self.values)[ends], len(self.sets), axis=0).transpose(2, 0, 1)
        return Interval(lo, hi), np.tile(self.sets, (len(ends), 1)), truth.astype(bool).ravel()


def allowed_sets(vectors: np.ndarray, sets: np.ndarray, groups: Groups | None) -> np.ndarray:
    """Return ``[N, C]``: which sets each concrete vector allows under some tie-break."""
    if groups is None:
        return top_sets(vectors, sets)
    size = vectors.shape[1] // groups.count
    best = np.sort(vectors.reshape(len(vectors), groups.count, size), axis=2)
    totals = best[:, :, max(0, size - groups.top) :].sum(axis=2)
    allowed = np.zeros((len(vectors), len(sets)), dtype=bool)
    for kept in itertools.combinations(range(groups.count), groups.kept):
        mask = np.isin(np.arange(groups.count), kept)
        worst = totals[:, mask].min(axis=1)
        valid = worst >= totals[:, ~mask].max(axis=1, initial=-INF)
        competing = np.where(np.repeat(mask, size), vectors, groups.fill)
        allowed |= valid[:, None] & top_sets(competing, sets)
    return allowed


def top_sets(competing: np.ndarray, sets: np.ndarray) -> np.ndarray:
    least = np.where(sets[None], competing[:, None, :], INF).min(axis=2)
    most = np.where(sets[None], -INF, competing[:, None, :]).max(axis=2)
    return least >= most


def brute_force(
    values: tuple[float, ...], experts: int, top_k: int, groups: Groups | None
) -> Attained:
    sets = all_sets(experts, top_k)
    vectors = np.array(list(itertools.product(values, repeat=experts)))
    bits = (allowed_sets(vectors, sets, groups) << np.arange(len(sets))).sum(axis=1)
    return Attained(values, sets, bits.reshape((len(values),) * experts))


def all_sets(experts: int, top_k: int) -> np.ndarray:
    chosen = itertools.combinations(range(experts), top_k)
    return np.array([np.isin(range(experts), ids) for ids in chosen])


def assert_same(
    said: np.ndarray,
    truth: np.ndarray,
    values: Interval,
    chosen: np.ndarray,
    groups: Groups | None,
) -> None:
    wrong = np.flatnonzero(said != truth)
    if len(wrong):
        row = wrong[0]
        kind = "a hole: nothing" if said[row] else "a false alarm: something"
        pytest.fail(
            f"{kind} inside lo={values.lo[row].tolist()} hi={values.hi[row].tolist()} selects "
            f"{np.flatnonzero(chosen[row]).tolist()} under {groups} "
            f"({len(wrong)} of {len(said)} rows differ)"
        )


def assert_exact(
    values: tuple[float, ...], experts: int, top_k: int, groups: Groups | None, most: int
) -> None:
    """Hold ``may_select`` and ``only_selects`` against brute force on at most ``most`` rows."""
    found = brute_force(values, experts, top_k, groups)
    rng = np.random.default_rng(experts * 10 + top_k)
    rows, chosen, truth = found.rows(found.boxes(most // len(found.sets), rng))
    said = may_select(rows, chosen, groups, FLOAT64)
    assert_same(said, truth, rows, chosen, groups)
    only = only_selects(rows, chosen, groups, FLOAT64)
    alone = truth.reshape(-1, len(found.sets)).sum(axis=1) == 1
    proven = truth & np.repeat(alone, len(found.sets))
    unsound = np.flatnonzero(only & ~proven)
    assert not len(unsound), (
        f"only_selects is True at lo={rows.lo[unsound[0]]} hi={rows.hi[unsound[0]]} for "
        f"{np.flatnonzero(chosen[unsound[0]])} under {groups}, but other sets are attained"
    )
    if groups is None and top_k < experts:
        assert (only == proven).all(), "without groups, only_selects misses a set that is alone"
    if top_k < experts and (groups is None or groups.fill == -INF):
        assert only.any(), "only_selects never said True: this test saw nothing"


@pytest.mark.parametrize(("experts", "top_k", "groups"), STRUCTURES)
def test_a_set_is_accepted_exactly_where_brute_force_attains_it(
    experts: int, top_k: int, groups: Groups | None
) -> None:
    # every box of two or three experts, a seeded sample of the boxes of four and six
    values = FIVE if experts < 6 else FIVE[:4] if top_k % 2 else FIVE[1:]
    assert_exact(values, experts, top_k, groups, most=6_000)


@pytest.mark.parametrize("values", THREE, ids=str)
@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_every_box_of_four_experts_agrees_with_brute_force(
    top_k: int, values: tuple[float, ...]
) -> None:
    for groups in every_group_rule(4, top_k):
        assert_exact(values, 4, top_k, groups, most=6**4 * math.comb(4, top_k))


@pytest.mark.parametrize("seed", range(12))
def test_random_endpoints_agree_with_brute_force_too(seed: int) -> None:
    # distances between endpoints that all differ, so that group sums cross in many ways
    rng = np.random.default_rng(seed)
    experts, top_k = [(4, 1), (4, 2), (6, 1), (6, 2), (6, 3), (5, 2)][seed % 6]
    values = np.sort(rng.choice(np.arange(-24, 25), 4, replace=False)) / 8.0
    grid = tuple(np.unique(np.append(values, 0.0)).tolist())
    if seed % 2:
        grid = (-INF, *grid[1:])
    rules = every_group_rule(experts, top_k)
    for groups in [None, *(rules[i] for i in rng.choice(len(rules), min(3, len(rules))))]:
        found = brute_force(grid, experts, top_k, groups)
        rows, chosen, truth = found.rows(found.boxes(400, rng))
        assert_same(may_select(rows, chosen, groups, FLOAT64), truth, rows, chosen, groups)


@pytest.mark.parametrize("seed", range(6))
def test_scores_between_the_endpoints_never_select_a_refused_set(seed: int) -> None:
    # the argument above says that endpoints suffice; this holds it against random reals
    rng = np.random.default_rng(100 + seed)
    experts, top_k = 6, 1 + seed % 3
    sets = all_sets(experts, top_k)
    for groups in every_group_rule(experts, top_k):
        lo = rng.integers(-8, 9, (300, experts)) / 4.0
        hi = lo + rng.integers(0, 5, (300, experts)) / 4.0
        inside = lo + (hi - lo) * rng.random((300, experts))
        rows, which = np.nonzero(allowed_sets(inside, sets, groups))
        values, chosen = Interval(lo[rows], hi[rows]), sets[which]
        said = may_select(values, chosen, groups, FLOAT64)
        assert_same(said, np.ones(len(said), dtype=bool), values, chosen, groups)


def test_rows_are_judged_independently_of_the_rows_beside_them() -> None:
    rng = np.random.default_rng(5)
    lo = rng.integers(-3, 3, (60, 6)).astype(float)
    hi = lo + rng.integers(0, 3, (60, 6))
    chosen = np.array([np.isin(range(6), rng.choice(6, 2, replace=False)) for _ in range(60)])
    groups = Groups(count=3, kept=2, fill=0.0)
    together = may_select(Interval(lo, hi), chosen, groups, FLOAT64)
    apart = [
        bool(may_select(Interval(lo[t : t + 1], hi[t : t + 1]), chosen[t : t + 1], groups, FLOAT64))
        for t in range(60)
    ]
    assert together.tolist() == apart, "a row's verdict depends on its neighbours"


def test_no_tokens_give_no_verdicts() -> None:
    nothing = Interval(np.zeros((0, 4)), np.zeros((0, 4)))
    for groups in (None, Groups(count=2, kept=1, fill=0.0), Groups(count=2, kept=1)):
        none = np.zeros((0, 4), dtype=bool)
        assert may_select(nothing, none, groups, FLOAT64).shape == (0,), f"under {groups}"
        assert only_selects(nothing, none, groups, FLOAT64).shape == (0,), f"under {groups}"


def mask(experts: int, *ids: int) -> np.ndarray:
    return np.isin(np.arange(experts), ids)[None, :]


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


def test_a_masked_expert_loses_beside_a_bound_that_overflowed() -> None:
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


@pytest.mark.parametrize("groups", [rule for rule in every_group_rule(6, 1) if rule])
def test_groups_called_certain_or_impossible_are(groups: Groups) -> None:
    values = (-INF, -1.0, 0.0, 1.0)
    rng = np.random.default_rng(groups.count)
    points = np.array(list(itertools.product(values, repeat=6)))
    size = 6 // groups.count
    best = np.sort(points.reshape(-1, groups.count, size), axis=2)
    totals = best[:, :, -groups.top :].sum(axis=2)
    better = (totals[:, None, :] > totals[:, :, None]).sum(axis=2)
    no_worse = (totals[:, None, :] >= totals[:, :, None]).sum(axis=2) - 1
    for _ in range(150):
        ends = np.sort(rng.integers(0, 4, (2, 6)), axis=0)
        lo, hi = np.asarray(values)[ends]
        inside = ((lo <= points) & (points <= hi)).all(axis=1)
        box = Interval(lo[None], hi[None])
        kept, all_known = certain_groups(box, groups, FLOAT64)
        always = (no_worse[inside] < groups.kept).all(axis=0)
        assert (kept[0] <= always).all(), f"lo={lo} hi={hi} {groups}: certain is {kept[0]}"
        assert not all_known[0] or kept[0].sum() == groups.kept, "certain of more than are kept"
        ever = (better[inside] < groups.kept).any(axis=0)
        said = possible_groups(box, groups, FLOAT64)[0]
        assert (said >= ever).all(), f"lo={lo} hi={hi} {groups}: possible is {said}"

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
from functools import reduce

import numpy as np
import pytest
from brute_force import (
    FILLS,
    INF,
    all_sets,
    allowed_sets,
    assert_same,
    brute_force,
    every_group_rule,
    shown,
)

from moe_routing.conformance.judge import Interval, may_select, only_selects
from moe_routing.conformance.judge.selection import certain_groups, possible_groups
from moe_routing.reference import Groups
from moe_routing.reference.formats import BFLOAT16, FLOAT32, FORMATS, FloatFormat

FLOAT64 = FORMATS["float64"]
FIVE = (-INF, -1.0, 0.0, 1.0, 2.0)
THREE = [(-INF, 0.0, 1.0), (-1.0, 0.0, 1.0), (-2.0, -1.0, 0.0)]


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
    if top_k < experts < 8 and (groups is None or groups.fill == -INF):
        assert only.any(), "only_selects never said True: this test saw nothing"


@pytest.mark.parametrize(("experts", "top_k", "groups"), STRUCTURES)
def test_a_set_is_accepted_exactly_where_brute_force_attains_it(
    experts: int, top_k: int, groups: Groups | None
) -> None:
    # every box of two or three experts, a seeded sample of the boxes of four and six
    values = FIVE if experts < 6 else FIVE[:4] if top_k % 2 else FIVE[1:]
    assert_exact(values, experts, top_k, groups, most=6_000 if experts < 6 else 2_500)


@pytest.mark.parametrize("values", THREE, ids=str)
@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_every_box_of_four_experts_agrees_with_brute_force(
    top_k: int, values: tuple[float, ...]
) -> None:
    for groups in every_group_rule(4, top_k):
        if groups is None or groups.top < 3:  # a sample of those is above
            assert_exact(values, 4, top_k, groups, most=6**4 * math.comb(4, top_k))


@pytest.mark.parametrize(("count", "kept", "top"), [(4, 2, 2), (2, 1, 4), (2, 1, 5), (4, 1, 1)])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_a_sample_of_the_boxes_of_eight_experts_agrees_with_brute_force(
    count: int, kept: int, top: int, fill: float, top_k: int
) -> None:
    values = (-INF, 0.0, 1.0) if top_k % 2 else (-1.0, 0.0, 0.5)
    groups = Groups(count=count, kept=kept, top=top, fill=fill)
    assert_exact(values, 8, top_k, groups, most=1_500)


@pytest.mark.parametrize(
    ("experts", "count", "top_k"), [(4, 2, 2), (4, 2, 4), (6, 3, 3), (6, 2, 4)]
)
def test_what_every_group_gives_agrees_with_brute_force(
    experts: int, count: int, top_k: int
) -> None:
    groups = Groups(count=count, kept=count, from_each=True)
    values = (-INF, -1.0, 0.0, 1.0) if experts < 6 else (-INF, 0.0, 1.0)
    assert_exact(values, experts, top_k, groups, most=3_000)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_infinite_scores_tie_with_each_other_and_beat_every_other(top_k: int) -> None:
    for groups in every_group_rule(4, top_k):
        if groups is None or groups.top == 1:  # sums of two infinities are not judged
            assert_exact((-INF, 0.0, 1.0, INF), 4, top_k, groups, most=4_000)


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


SUMMERS = {
    "forward": lambda best, form: reduce(lambda a, b: form.round(a + b), best.T),
    "backward": lambda best, form: reduce(lambda a, b: form.round(a + b), best.T[::-1]),
    "rounded once": lambda best, form: form.round(best.sum(axis=1)),
}


@pytest.mark.parametrize("form", [FLOAT32, BFLOAT16], ids=lambda form: form.name)
@pytest.mark.parametrize("summer", SUMMERS)
@pytest.mark.parametrize("top", [2, 3, 4])
def test_groups_that_honest_sums_keep_are_right(form: FloatFormat, summer: str, top: int) -> None:
    # near ties of groups, which the rounding of a sum decides
    rng, groups = np.random.default_rng(top), Groups(count=3, kept=1, top=top)
    steps = rng.integers(-3, 4, (4000, 12)) * form.unit_roundoff
    scores = form.round(rng.choice([1.0, 1.3, 0.7], (4000, 1)) * (1.0 + steps))
    best = np.sort(scores.reshape(-1, 4), axis=1)[:, -top:]
    sums = SUMMERS[summer](best, form).reshape(-1, 3)
    first = np.argmax(sums, axis=1)[:, None] * 4
    winner = first + np.argmax(np.take_along_axis(scores, first + np.arange(4), 1), 1)[:, None]
    chosen = np.arange(12) == winner
    said = may_select(Interval.point(scores), chosen, groups, form)
    assert said.all(), f"{(~said).sum()} of 4000 honest choices are refused"
    exact = may_select(Interval.point(scores), chosen, groups, FLOAT64)
    assert not exact.all() or summer == "rounded once", "no rounding decided: nothing was seen"


def test_rows_are_judged_independently_of_the_rows_next_to_them() -> None:
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

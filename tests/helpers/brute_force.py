"""The chosen sets that brute force finds for scores on a grid; nothing here calls the judge."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest

from moe_routing.conformance.judge import Interval
from moe_routing.reference import Groups

INF = math.inf
FILLS = (-INF, 0.0)


def every_group_rule(experts: int, top_k: int) -> list[Groups | None]:
    """No groups, then every legal rule of 1, 2 or 3 groups, top 1, 2 or 3, either fill."""
    rules: list[Groups | None] = [None]
    for count in (1, 2, 3):
        if experts % count:
            continue
        rules += [
            Groups(count=count, kept=kept, top=top, fill=fill)
            for kept in range(1, count + 1)
            if top_k <= kept * experts // count
            for top in (1, 2, 3)
            for fill in FILLS
        ]
    return rules


def shown(rule: Groups | None) -> str:
    return f"{rule.kept}of{rule.count}top{rule.top}fill{rule.fill}" if rule else "ungrouped"


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
    if groups.from_each:
        shape = (len(sets), groups.count, size)
        given = sets.reshape(shape).swapaxes(0, 1)
        blocks = vectors.reshape(len(vectors), groups.count, size).swapaxes(0, 1)
        each = [top_sets(*pair) for pair in zip(blocks, given, strict=True)]
        even = (sets.reshape(shape).sum(axis=2) * groups.count == sets[0].sum()).all(axis=1)
        return np.logical_and.reduce(each) & even
    best = np.sort(vectors.reshape(len(vectors), groups.count, size), axis=2)
    totals = best[:, :, max(0, size - groups.top) :].sum(axis=2)
    allowed = np.zeros((len(vectors), len(sets)), dtype=bool)
    for kept in itertools.combinations(range(groups.count), groups.kept):
        mask = np.isin(np.arange(groups.count), kept)
        worst = totals[:, mask].min(axis=1)
        valid = worst >= totals[:, ~mask].max(axis=1, initial=-INF)
        competing = np.where(np.repeat(mask, size), vectors[valid], groups.fill)
        allowed[valid] |= top_sets(competing, sets)
    return allowed


def top_sets(competing: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Return ``[N, C]``: which sets have no expert below one that is left out.

    One expert at a time: NumPy is slow along an axis of a few numbers.
    """
    least = np.full((len(competing), len(sets)), INF)
    most = -least
    for scores, chosen in zip(competing.T[:, :, None], sets.T, strict=True):
        np.minimum(least, np.where(chosen, scores, INF), out=least)
        np.maximum(most, np.where(chosen, -INF, scores), out=most)
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


def mask(experts: int, *ids: int) -> np.ndarray:
    return np.isin(np.arange(experts), ids)[None, :]

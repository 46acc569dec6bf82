"""Which sets of experts rounding can explain (docs/spec/judging.md, "Selection")."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.intervals import Interval
from moe_routing.reference import Groups
from moe_routing.reference.formats import Bools, FloatFormat, Floats, Ids
from moe_routing.reference.quick import some

_Any = TypeVar("_Any", bound=np.generic)


def distinct_in_range(expert_ids: Ids, num_experts: int) -> tuple[Bools, Bools]:
    """Return, per row of ``expert_ids [T, K]``, whether they are distinct, and in [0, E)."""
    ordered = np.sort(expert_ids, axis=1)
    distinct = (ordered[:, 1:] != ordered[:, :-1]).all(axis=1)
    return distinct, (ordered[:, 0] >= 0) & (ordered[:, -1] < num_experts)


def chosen_mask(expert_ids: Ids, num_experts: int) -> Bools:
    """Return ``[T, E]``: which experts are among a row's ids; ids out of range are dropped."""
    chosen = np.zeros((len(expert_ids), num_experts + 1), dtype=bool)
    outside = (expert_ids < 0) | (expert_ids >= num_experts)
    places = np.where(outside, num_experts, expert_ids) if some(outside) else expert_ids
    chosen[np.arange(len(expert_ids))[:, None], places] = True
    return chosen[:, :num_experts]


def may_select(
    competing: Interval, chosen: Bools, groups: Groups | None, form: FloatFormat
) -> Bools:
    """Return, per token, whether some scores inside the intervals select exactly ``chosen``.

    ``competing`` are the biased scores ``[T, E]``, ``chosen [T, E]`` holds K trues a row.
    Exact: neither a false alarm nor a hole, since the endpoints are attained together.
    ``form`` is the dtype that group scores are summed in.
    """
    if groups is None:
        return _cut(competing, chosen) >= _best_outside(competing, chosen)
    if groups.from_each:
        return _may_give(competing, chosen, groups.count)
    return _GroupedSelection(competing, chosen, groups, form).possible()


def only_selects(
    competing: Interval, chosen: Bools, groups: Groups | None, form: FloatFormat
) -> Bools:
    """Return, per token, whether ``chosen`` is the one set that the intervals permit.

    Sufficient, not necessary, for groups: the kept groups must be certain, too.
    """
    if groups is not None and groups.from_each:
        blocks, given = competing.each(partial(in_blocks, groups)), in_blocks(groups, chosen)
        alone = only_selects(blocks, given, None, form).reshape(len(chosen), groups.count)
        return np.asarray(alone.all(axis=1) & _even(chosen, groups.count))
    inside: Floats = np.where(chosen, competing.lo, np.inf).min(axis=1, initial=np.inf)
    if groups is None:
        return inside > _best(np.where(chosen, -np.inf, competing.hi))
    kept, certain = certain_groups(competing, groups, form)
    kept = np.repeat(kept, competing.lo.shape[1] // groups.count, axis=1)
    rest = np.where(kept, competing.hi, groups.fill)
    outside = _best(np.where(chosen, -np.inf, rest))
    return certain & (chosen <= kept).all(axis=1) & (inside > outside)


def in_blocks(groups: Groups | None, values: npt.NDArray[_Any]) -> npt.NDArray[_Any]:
    """Return ``[T, E]`` with a row for each choice: where every group gives experts, a group's."""
    if groups is None or not groups.from_each:
        return values
    return values.reshape(len(values) * groups.count, values.shape[1] // groups.count)


def _may_give(competing: Interval, chosen: Bools, count: int) -> Bools:
    """Return, per token, whether every one of ``count`` groups may give what is chosen of it."""
    shape = len(chosen), count, chosen.shape[1] // count
    inside = np.where(chosen, competing.hi, np.inf).reshape(shape).min(axis=2)
    outside = np.where(chosen, -np.inf, competing.lo).reshape(shape).max(axis=2)
    may: Bools = (inside >= outside).all(axis=1) & _even(chosen, count)
    return may


def _even(chosen: Bools, count: int) -> Bools:
    """Return, per token, whether as many experts are chosen of every group."""
    given = chosen.reshape(len(chosen), count, chosen.shape[1] // count).sum(axis=2)
    even: Bools = (given == given[:, :1]).all(axis=1)
    return even


def certain_groups(competing: Interval, groups: Groups, form: FloatFormat) -> tuple[Bools, Bools]:
    """Return the groups certainly kept ``[T, count]``, and whether those are all of them ``[T]``.

    A group is where at most ``kept`` groups, itself among them, can score as much as it must.
    """
    sums = group_sums(competing, groups, form)
    if groups.kept == groups.count:
        return np.ones(sums.lo.shape, dtype=bool), np.ones(len(sums.lo), dtype=bool)
    kept = ~(sums.lo <= _nth_best(sums.hi, groups.kept + 1))
    return kept, kept.sum(axis=1) == groups.kept


def possible_groups(competing: Interval, groups: Groups, form: FloatFormat) -> Bools:
    """Return the groups ``[T, count]`` that some scores inside the intervals keep.

    A group is one where fewer than ``kept`` must score more than it can.
    """
    sums = group_sums(competing, groups, form)
    return ~(sums.hi < _nth_best(sums.lo, groups.kept))


def group_sums(values: Interval, groups: Groups, form: FloatFormat) -> Interval:
    """Bound the sum of each group's ``top`` best, ``[T, count]``, with its own rounding.

    Each endpoint is widened by the rounding of its own summands: in between a sum rounds by
    more only as it moves away from the endpoint, and by far less than it moves.
    """
    top = min(groups.top, values.lo.shape[1] // groups.count)
    slack = float(np.expm1((top - 1) * np.log1p(form.unit_roundoff)))
    low, size = _top_sum(values.lo, groups.count, top)
    lo, hi = low - slack * size, low + slack * size
    if values.hi is not values.lo:
        high, size = _top_sum(values.hi, groups.count, top)
        hi = high + slack * size
    return Interval(lo, hi)


def _top_sum(values: Floats, count: int, top: int) -> tuple[Floats, Floats]:
    """Sum each group's ``top`` best, and the magnitudes of those that are finite.

    A masked expert's -inf wins over a bound of +inf.
    """
    grouped = values.reshape(len(values), count, values.shape[1] // count)
    best = np.moveaxis(np.sort(grouped, axis=2)[:, :, grouped.shape[2] - top :], 2, 0)
    zero = np.zeros(best.shape[1:])
    total: Floats = sum(best, zero)  # faster than along so short an axis
    size: Floats = sum(np.abs(best), zero)
    if np.isfinite(size).all():
        return total, size
    size = sum(np.where(np.isfinite(best), np.abs(best), 0.0), zero)
    return np.where(best[0] == -np.inf, -np.inf, total), size


def _nth_best(values: Floats, n: int) -> Floats:
    """Return the n-th greatest of each row, ``[T, 1]``."""
    place = values.shape[1] - n
    return np.partition(values, place, axis=1)[:, place, None]


def _cut(competing: Interval, chosen: Bools) -> Floats:
    cut: Floats = np.where(chosen, competing.hi, np.inf).min(axis=1, initial=np.inf)
    return cut


def _best_outside(competing: Interval, chosen: Bools) -> Floats:
    return _best(np.where(chosen, -np.inf, competing.lo))


def _best(values: Floats) -> Floats:
    """Return the greatest of each row, ``[T]``."""
    best: Floats = values.max(axis=1, initial=-np.inf)
    return best


class _GroupedSelection:
    """Search for the kept groups that explain ``chosen``, all tokens at once.

    A set G of ``kept`` groups explains it where, with ``cut`` the least that a chosen
    expert can compete with (its ``hi`` in G, the fill outside),

    1. every other expert can stay at the cut or below: ``lo`` in G, the fill outside; and
    2. with every expert of G as high as (1) lets it be and every other as low as it gets,
       no group outside G scores more than one inside.

    Lowering the cut only makes both harder, so G exists iff some candidate cut, at most
    the true one, passes; and for each cut, groups are independent given the threshold
    that separates the kept groups' scores from the others', so that one comparison of the
    thresholds that permit enough of each replaces the search over subsets.
    """

    def __init__(
        self, competing: Interval, chosen: Bools, groups: Groups, form: FloatFormat
    ) -> None:
        self.values, self.chosen, self.groups, self.form = competing, chosen, groups, form
        self.fill = groups.fill
        low = Interval(competing.lo, competing.lo)
        self.outside = group_sums(low, groups, form).lo
        self.size = chosen.shape[1] // groups.count
        number = self._count(chosen)
        self.any_chosen, self.all_chosen = number > 0, number == self.size

    def possible(self) -> Bools:
        all_inside = _cut(self.values, self.chosen)
        found = self._explained(all_inside)
        if not found.all():
            found |= self._explained(np.full(len(all_inside), self.fill))
        if np.isfinite(self.fill):
            found |= self._explained_below_fill(found)
        return found

    def _explained_below_fill(self, found: Bools) -> Bools:
        """Try cuts below the fill: possible only where all that is outside G was chosen."""
        hard = ~found & self.all_chosen.any(axis=1)
        explained = np.zeros(len(found), dtype=bool)
        if not hard.any():
            return explained
        part = _GroupedSelection(
            Interval(self.values.lo[hard], self.values.hi[hard]),
            self.chosen[hard],
            self.groups,
            self.form,
        )
        cuts = np.sort(np.where(part.chosen, part.values.hi, np.inf), axis=1)
        result = np.zeros(len(part.chosen), dtype=bool)
        for cut in cuts[:, : part.chosen.sum(axis=1).max()].T:
            result |= np.isfinite(cut) & part._explained(cut)
        explained[hard] = result
        return explained

    def _explained(self, cut: Floats) -> Bools:
        """Return, per token, whether some G passes with this cut ``[T]``."""
        limit = cut[:, None]
        high = np.where(self.chosen, self.values.hi, np.minimum(self.values.hi, limit))
        inside = group_sums(Interval(high, high), self.groups, self.form).hi
        fits = np.where(self.chosen, self.values.hi >= limit, self.values.lo <= limit)
        may_keep = self._count(~fits) == 0
        may_drop = (~self.any_chosen | (self.fill >= limit)) & (
            self.all_chosen | (self.fill <= limit)
        )
        return self._separable(inside, may_keep, may_drop)

    def _separable(self, inside: Floats, may_keep: Bools, may_drop: Bools) -> Bools:
        """Return whether a threshold lies between the scores of kept and of dropped groups.

        It must be reached by every group that can only be kept, and by ``kept`` in all; and
        not passed by any that can only be dropped, nor by all but ``count - kept`` others.
        A group scores no less if kept than if dropped, so one that can be either never
        prevents a threshold.
        """
        kept, dropped = self.groups.kept, self.groups.count - self.groups.kept
        most = np.where(may_keep & ~may_drop, inside, np.inf).min(axis=1)
        best = np.sort(np.where(may_keep, inside, -np.inf), axis=1)
        most = np.minimum(most, best[:, dropped])
        least = np.where(may_drop & ~may_keep, self.outside, -np.inf).max(axis=1)
        if dropped:
            worst = np.sort(np.where(may_drop, self.outside, np.inf), axis=1)
            least = np.maximum(least, worst[:, dropped - 1])
        enough = (may_keep.sum(axis=1) >= kept) & (may_drop.sum(axis=1) >= dropped)
        between: Bools = (may_keep | may_drop).all(axis=1) & enough & (least <= most)
        return between

    def _count(self, mask: Bools) -> Ids:
        """Return how many of each group's experts ``mask [T, E]`` has, ``[T, count]``."""
        shape = len(mask), self.groups.count
        number = np.bincount(np.flatnonzero(mask) // self.size, minlength=shape[0] * shape[1])
        return number.reshape(shape)

"""Which sets of experts rounding can explain (docs/spec/judging.md, "Selection")."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.judge.intervals import Interval
from moe_routing.reference import Groups
from moe_routing.reference.formats import FloatFormat, Floats

Bools = npt.NDArray[np.bool_]


def distinct_in_range(expert_ids: npt.NDArray[np.int64], num_experts: int) -> tuple[Bools, Bools]:
    """Tell for each row of ``expert_ids [T, K]`` whether they are distinct, and in [0, E)."""
    ordered = np.sort(expert_ids, axis=1)
    distinct = (ordered[:, 1:] != ordered[:, :-1]).all(axis=1)
    return distinct, ((expert_ids >= 0) & (expert_ids < num_experts)).all(axis=1)


def chosen_mask(expert_ids: npt.NDArray[np.int64], num_experts: int) -> Bools:
    """Return ``[T, E]``: which experts are among a row's ids; ids out of range are dropped."""
    chosen = np.zeros((len(expert_ids), num_experts + 1), dtype=bool)
    inside = (expert_ids >= 0) & (expert_ids < num_experts)
    np.put_along_axis(chosen, np.where(inside, expert_ids, num_experts), True, axis=1)
    return chosen[:, :num_experts]


def may_select(
    competing: Interval, chosen: Bools, groups: Groups | None, form: FloatFormat
) -> Bools:
    """Tell for each token whether scores inside the intervals select exactly ``chosen``.

    ``competing`` are the biased scores ``[T, E]``, ``chosen [T, E]`` holds K trues a row.
    Exact: neither a false alarm nor a hole, since the endpoints are attained together.
    ``form`` is the dtype that group scores are summed in.
    """
    if groups is None:
        return _cut(competing, chosen) >= _best_outside(competing, chosen)
    return _GroupedSelection(competing, chosen, groups, form).possible()


def only_selects(
    competing: Interval, chosen: Bools, groups: Groups | None, form: FloatFormat
) -> Bools:
    """Tell for each token whether ``chosen`` is the one set that the intervals permit.

    Sufficient, not necessary, for groups: the kept groups must be certain, too.
    """
    inside = np.where(chosen, competing.lo, np.inf).min(axis=1)
    if groups is None:
        return inside > np.where(chosen, -np.inf, competing.hi).max(axis=1, initial=-np.inf)
    kept, certain = certain_groups(competing, groups, form)
    kept = np.repeat(kept, competing.lo.shape[1] // groups.count, axis=1)
    rest = np.where(kept, competing.hi, groups.fill)
    outside = np.where(chosen, -np.inf, rest).max(axis=1, initial=-np.inf)
    return certain & (chosen <= kept).all(axis=1) & (inside > outside)


def certain_groups(competing: Interval, groups: Groups, form: FloatFormat) -> tuple[Bools, Bools]:
    """Return the groups that are kept for certain ``[T, count]``, and whether all are ``[T]``."""
    sums = group_sums(competing, groups, form)
    beaten_by = (sums.hi[:, None, :] >= sums.lo[:, :, None]).sum(axis=2) - 1
    kept = beaten_by < groups.kept
    return kept, kept.sum(axis=1) == groups.kept


def possible_groups(competing: Interval, groups: Groups, form: FloatFormat) -> Bools:
    """Return the groups ``[T, count]`` that some scores inside the intervals keep."""
    sums = group_sums(competing, groups, form)
    surely_better = (sums.lo[:, None, :] > sums.hi[:, :, None]).sum(axis=2)
    return surely_better < groups.kept


def group_sums(values: Interval, groups: Groups, form: FloatFormat) -> Interval:
    """Bound the sum of each group's ``top`` best, ``[T, count]``, with its own rounding."""
    top = min(groups.top, values.lo.shape[1] // groups.count)
    sums = Interval(_top_sum(values.lo, groups.count, top), _top_sum(values.hi, groups.count, top))
    if top == 1:
        return sums
    apart = np.maximum(
        _top_sum(np.abs(_finite(values.lo)), groups.count, top),
        _top_sum(np.abs(_finite(values.hi)), groups.count, top),
    )
    slack = np.expm1((top - 1) * np.log1p(form.unit_roundoff)) * apart
    return Interval(sums.lo - slack, sums.hi + slack)


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, 0.0)


def _top_sum(values: Floats, count: int, top: int) -> Floats:
    """Sum each group's ``top`` best; a masked expert's -inf wins over a bound of +inf."""
    grouped = values.reshape(len(values), count, values.shape[1] // count)
    best = np.partition(grouped, grouped.shape[2] - top, axis=2)[:, :, -top:]
    return np.where(np.isneginf(best).any(axis=2), -np.inf, best.sum(axis=2))


def _cut(competing: Interval, chosen: Bools) -> Floats:
    return np.where(chosen, competing.hi, np.inf).min(axis=1, initial=np.inf)


def _best_outside(competing: Interval, chosen: Bools) -> Floats:
    return np.where(chosen, -np.inf, competing.lo).max(axis=1, initial=-np.inf)


class _GroupedSelection:
    """Search for the kept groups that explain ``chosen``, all tokens at once.

    A set G of ``kept`` groups explains it where, with ``cut`` the least that a chosen
    expert can compete with (its ``hi`` in G, the fill outside),

    1. every other expert can stay at the cut or below: ``lo`` in G, the fill outside; and
    2. with every expert of G as high as (1) lets it be and every other as low as it gets,
       no group outside G scores more than one inside.

    Lowering the cut only makes both harder, so G exists iff some candidate cut, at most
    the true one, passes; and for each cut, groups are independent given the threshold
    that separates the kept groups' scores from the others', so that a sweep over the
    candidate thresholds replaces the search over subsets.
    """

    def __init__(
        self, competing: Interval, chosen: Bools, groups: Groups, form: FloatFormat
    ) -> None:
        self.values, self.chosen, self.groups, self.form = competing, chosen, groups, form
        self.fill = groups.fill
        low = Interval(competing.lo, competing.lo)
        self.outside = group_sums(low, groups, form).lo
        self.any_chosen = self._grouped(chosen).any(axis=2)
        self.all_chosen = self._grouped(chosen).all(axis=2)

    def possible(self) -> Bools:
        all_inside = _cut(self.values, self.chosen)
        found = self._explained(all_inside)
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
        """Tell for each token whether some G passes with this cut ``[T]``."""
        limit = cut[:, None]
        high = np.where(self.chosen, self.values.hi, np.minimum(self.values.hi, limit))
        inside = group_sums(Interval(high, high), self.groups, self.form).hi
        fits = np.where(self.chosen, self.values.hi >= limit, self.values.lo <= limit)
        may_keep = self._grouped(fits).all(axis=2)
        may_drop = (~self.any_chosen | (self.fill >= limit)) & (
            self.all_chosen | (self.fill <= limit)
        )
        return self._separable(inside, may_keep, may_drop)

    def _separable(self, inside: Floats, may_keep: Bools, may_drop: Bools) -> Bools:
        """Sweep the threshold over the scores of dropped groups, and -inf for none dropped."""
        thresholds = np.concatenate([self.outside, np.full((len(inside), 1), -np.inf)], axis=1)[
            :, :, None
        ]
        keep = may_keep[:, None, :] & (inside[:, None, :] >= thresholds)
        drop = may_drop[:, None, :] & (self.outside[:, None, :] <= thresholds)
        needed = (~drop).sum(axis=2)
        return (
            (keep | drop).all(axis=2)
            & (needed <= self.groups.kept)
            & (self.groups.kept <= keep.sum(axis=2))
        ).any(axis=1)

    def _grouped(self, mask: Bools) -> Bools:
        count = self.groups.count
        return mask.reshape(len(mask), count, mask.shape[1] // count)

"""Which weights rounding can explain, at the backend's own ids (docs/spec/judging.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.gather import Gathered, gather, selected_softmax
from moe_routing.conformance.judge.intervals import (
    POWER,
    ROUNDING,
    Interval,
    division,
    elementary,
    half_ulp,
    joined_intervals,
    running_additions,
    store_unit,
    underflow,
)
from moe_routing.conformance.judge.quotients import EXPONENT, magnitude_of
from moe_routing.conformance.judge.renormalize import guard, renormalized
from moe_routing.conformance.judge.rows import RowBounds, joined_rows
from moe_routing.reference import Renormalize
from moe_routing.reference.formats import FLOAT32, Bools, Floats, Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightBounds:
    """The permitted weights ``[T, K]``, and in 16 bits those up to a factor of the ``row``.

    Where ``decided [T]`` is False the norm may be 0: any weight within the bounds, or
    NaN, is right, and nothing was learnt.
    """

    permitted: Interval
    decided: Bools
    row: RowBounds | None = None

    def rows(self, which: Ids | slice) -> WeightBounds:
        """Take the rows ``which``."""
        row = None if self.row is None else self.row.rows(which)
        return WeightBounds(
            permitted=self.permitted.rows(which), decided=self.decided[which], row=row
        )


class LateWeightBounds(WeightBounds):
    """The permitted weights of a large call, made when something reads them."""

    def __init__(self, make: Callable[[], WeightBounds]) -> None:
        self.__dict__["make"] = make

    @cached_property
    def _made(self) -> WeightBounds:
        with np.errstate(all="ignore"):
            return cast(WeightBounds, self.__dict__["make"]())

    @property
    def permitted(self) -> Interval:
        """The permitted weights."""
        return self._made.permitted

    @property
    def decided(self) -> Bools:
        """The rows whose norm cannot be 0."""
        return self._made.decided

    @property
    def row(self) -> RowBounds | None:
        """Those up to a factor of the row."""
        return self._made.row


def joined_bounds(parts: Sequence[WeightBounds]) -> WeightBounds:
    """Return the bounds of all rows, of those of blocks of them."""
    rows = [part.row for part in parts if part.row is not None]
    return WeightBounds(
        permitted=joined_intervals([part.permitted for part in parts]),
        decided=np.concatenate([part.decided for part in parts]),
        row=joined_rows(rows) if rows else None,
    )


def weight_bounds(bounds: Bounds, later: SelectionBounds, expert_ids: Ids) -> WeightBounds:
    """Bound the weights at ``expert_ids [T, K]`` (in range), stage by stage.

    ``later`` are the bounds of the stages before. Stages run in the precision of the scores;
    the last cast is to that of the weights.
    """
    config, inputs = bounds.config, bounds.inputs
    score_format, weight_format = bounds.score_format, bounds.weight_format
    gathered = gather(bounds, later, expert_ids)
    weights, decided = gathered.plain, gathered.decided
    if config.renormalize is not None:
        weights, positive = renormalized(config.renormalize, gathered, score_format)
        weights = _or_of_selected(bounds, later, expert_ids, weights)
        decided = decided & positive
    u, tiny = score_format.unit_roundoff, underflow(score_format)
    if config.scale != 1.0:  # a constant and a product; or the scale over the norm comes first
        absolute = tiny * (2.0 + gathered.plain.hi)
        weights = weights.times(config.scale).widen(2 * ROUNDING, u, absolute)
    if inputs.per_expert_scale is not None:
        factors = inputs.per_expert_scale.astype(np.float64)[expert_ids]
        weights = weights.times(factors).widen(ROUNDING, u, tiny)
    # weights of 16 bits are those that the last store left, and float32 holds them
    cast = 0 if store_unit(score_format) else ROUNDING
    weights = weights.widen(cast, weight_format.unit_roundoff, underflow(weight_format))
    overflow = weight_format.largest
    return WeightBounds(
        permitted=Interval(
            np.where(weights.lo < -overflow, -np.inf, weights.lo),
            np.where(weights.hi > overflow, np.inf, weights.hi),
        ),
        decided=decided,
        row=_row(bounds, gathered, expert_ids) if store_unit(score_format) else None,
    )


def _or_of_selected(
    bounds: Bounds, later: SelectionBounds, expert_ids: Ids, quotients: Interval
) -> Interval:
    """Allow, in 16 bits, for the softmax of the selected that a renormalised softmax is."""
    config, form = bounds.config, bounds.score_format
    softmax = config.score == "softmax" and config.weights_from == "scores"
    if not store_unit(form) or not softmax or config.renormalize != Renormalize():
        return quotients
    one = selected_softmax(later.operated_at(expert_ids), form).scores
    return Interval(np.minimum(one.lo, quotients.lo), np.maximum(one.hi, quotients.hi))


def _row(bounds: Bounds, gathered: Gathered, expert_ids: Ids) -> RowBounds:
    """Bound the weights up to a factor of the row: the quotient and each product round alone."""
    config, form = bounds.config, bounds.score_format
    tiny, factors = underflow(form), np.full(expert_ids.shape, config.scale)
    roundings = ROUNDING * (config.renormalize is not None) + ROUNDING * (config.scale != 1.0)
    below = (tiny + tiny * np.abs(factors)) * (2.0 + gathered.plain.hi)
    if bounds.inputs.per_expert_scale is not None:
        each = bounds.inputs.per_expert_scale.astype(np.float64)[expert_ids]
        factors, below, roundings = factors * each, below * np.abs(each), roundings + ROUNDING
    return RowBounds(
        own=gathered.own.nonnegative().widen_nonnegative(roundings, form.unit_roundoff),
        scale=factors,
        below=below + tiny + underflow(bounds.weight_format),
    )


def sum_bounds(bounds: Bounds, later: SelectionBounds, expert_ids: Ids) -> WeightBounds:
    """Bound the sum ``[T]`` of plainly renormalised weights: the scale, and roundings.

    The quotients share their numerators with the norm, so the numerators' own errors
    cancel: ``norm / (norm + eps)``, which grows with the norm. What stays is the additions,
    that of eps, the quotient, the scale, and the cast. A softmax may be normalised by a
    separately computed logarithm of the norm, whose rounding is absolute in the exponent.
    Decided only where the norm lies far enough above the subnormal range.
    """
    config = bounds.config
    form, weight_format = bounds.score_format, bounds.weight_format
    u, k = form.unit_roundoff, config.top_k
    gathered = gather(bounds, later, expert_ids)
    norm = gathered.plain.nonnegative()
    norm = Interval(norm.lo.sum(axis=1), norm.hi.sum(axis=1))
    eps = guard(config.renormalize.eps if config.renormalize else 0.0, form)
    one = Interval(norm.lo / (norm.lo + eps.hi), norm.hi / (norm.hi + eps.lo))
    slack, units = _of_the_sum(bounds, later, gathered)
    one = Interval(one.lo * np.exp(-slack), one.hi * np.exp(slack)).in_units(units, u)
    tiny = underflow(form) * (2.0 + norm.hi) * (1.0 + abs(config.scale))
    absolute = k * (tiny + underflow(weight_format))
    sums = one.times(config.scale).widen(ROUNDING, weight_format.unit_roundoff, absolute)
    return WeightBounds(permitted=sums, decided=norm.lo * u >= k * underflow(form))


def _of_the_sum(
    bounds: Bounds, later: SelectionBounds, gathered: Gathered
) -> tuple[Floats, Floats]:
    """Return the error of the sum in its exponent, and in units of roundoff, ``[T]``.

    In 16 bits the logarithm takes two exponentials in place of the quotient.
    """
    config, form = bounds.config, bounds.score_format
    k, store = config.top_k, store_unit(form)
    largest = magnitude_of(later.operated).max(axis=1, initial=0.0)
    by_logarithm = config.score == "softmax" or config.weights_from == "softmax_of_selected"
    slack = by_logarithm * FLOAT32.unit_roundoff * EXPONENT * 2.0 * largest
    if not store:
        return slack, np.full(len(slack), float(k + division(form) + POWER + ROUNDING))
    if by_logarithm:
        slack += half_ulp(largest + np.log(k) + store, form) + store * 2.0 * np.log(k)
    stores = 2 * elementary(form) if by_logarithm else division(form)
    others = ROUNDING + stores + 2 * ROUNDING * (config.scale != 1.0)
    return slack, running_additions(gathered.numerators, form)[:, 0] + others

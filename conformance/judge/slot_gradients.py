"""Gradients of logits at the selected slots alone: the walk of ``logit_gradients`` on K numbers.

Where no other expert has a gradient these are the permitted balls themselves. Under a softmax of
all experts, the scores that go in lie within the permitted ones, and so do the gradients that come
out: no operation on balls makes more of less. Derivations: docs/spec/judging.md, "What certainly
lies within".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from moe_routing.conformance.judge.balls import UNIT, Ball
from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.gradient_balls import added, around, less, times, weighted_rest
from moe_routing.conformance.judge.intervals import (
    DIVISION,
    ELEMENTARY,
    ROUNDING,
    Interval,
    additions,
    division,
    elementary,
    store_unit,
)
from moe_routing.conformance.judge.logit_gradients import Way, stored_in, stored_logits
from moe_routing.conformance.judge.quotients import ScoreBounds
from moe_routing.reference import Renormalize
from moe_routing.reference.formats import FLOAT16, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.logits import logit_op
from moe_routing.reference.scores import SCORE_FUNCTIONS

_LESS = 1.0 - 2.0**-10
"""What is used of a width; the rest is more than float64 loses in it, and than what underflows."""

_WIDER = 2.0**-10
"""More than scores of float32 are off in proportion, of logits within ``certain_gradients``."""

_SHARE, _NORM = 2.0**-60, 2.0**-20
"""A selected share, and the greatest of a row, above which nothing is lost or undecided."""

_ORDER, _FLOOR = 2.0, 2.0
"""The order of a norm, and how far it is from its floor in proportion, for that to hold."""


@dataclass(frozen=True, eq=False)
class SlotGradients:
    """Balls at the slots ``[T, K]``, and which rows ``[T]`` they are of use for.

    ``rest`` and ``rest_radius`` are those of the experts that no slot holds, ``[T, E]``; None where
    they are 0.
    """

    at: Ball
    fine: Bools
    rest: Floats | None = None
    rest_radius: Floats | None = None


def slot_gradients(
    bounds: Bounds, logits: Floats, ids: Ids, cotangent: Floats
) -> SlotGradients | None:
    """Return balls within those permitted, of calm ``logits`` and distinct ``ids``; else None."""
    later = SlotBounds.of(bounds, logits)
    if not later.covers():
        return None
    with np.errstate(all="ignore"):
        way = SlotWay(bounds, later, ids)
        at = stored_logits(bounds, way.back(cotangent))
        fine = at.decided.all(axis=1) & later.fine(ids)
        if later.of_all:
            return SlotGradients(at, fine, *_rest(bounds, later, way.means[-1]))
        return SlotGradients(at, fine)


def _rest(bounds: Bounds, later: SlotBounds, mean: Ball) -> tuple[Floats, Floats]:
    """Return ``-p mean``, back through the logit op, and the least that it is off by."""
    form, config = bounds.score_format, bounds.config
    out = store_unit(stored_in(bounds))
    units = later.widths[2] + 2.0 * (UNIT + store_unit(form)) + UNIT + out
    factor: Any = 1.0
    if config.logit_softcap is not None:
        factor = 1.0 - np.square(later.exact / config.logit_softcap)
    shares = later.shares * (factor * config.logit_multiplier)
    return -shares * mean.mid, np.abs(shares) * (_LESS * (mean.rad + units * np.abs(mean.mid)))


@dataclass(frozen=True, eq=False)
class SlotWay(Way):
    """The way back at the slots alone; ``means`` are those of a softmax."""

    means: list[Ball] = field(default_factory=list)

    @cached_property
    def operated(self) -> Interval:
        """The logits after the logit op, of the selected experts."""
        return self.later.operated_at(self.ids)

    @cached_property
    def scores(self) -> ScoreBounds:
        """The scores of the selected experts."""
        return self.later.scores_at(self.ids)

    def _scattered(self, at: Ball) -> Ball:
        return at

    def _by_softmax(self, at: Ball) -> Ball:
        """Return the gradient of the selected logits through a softmax of all."""
        scores, form, normed = around(self.scores.scores), self.form, self._normed(at)
        if self.bounds.config.renormalize is None:
            self.means.append(added(times(normed, scores, form), form))
            return weighted_rest(scores, normed, self.means[-1], form)
        direct = times(normed, around(self.scores.numerators), form)
        self.means.append(added(direct, form))
        found = less(direct, times(scores, self.means[-1], form), form)
        return self._or_of_selected(at, found)


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotBounds(SelectionBounds):
    """Bounds of the selected experts from own logits: no wider than permitted.

    Only a softmax of all experts has narrower ones. What competes is wider: it says which groups
    are kept.
    """

    @classmethod
    def of(cls, bounds: Bounds, logits: Floats) -> SlotBounds:
        """Begin with the logits, all of which are judged."""
        return cls(
            config=bounds.config,
            selection_bias=bounds.inputs.selection_bias,
            numerics=bounds.numerics,
            form=bounds.score_format,
            logits=Interval.point(logits),
            judged=np.ones(len(logits), dtype=bool),
        )

    @property
    def of_all(self) -> bool:
        """Whether the weights are of a softmax of all experts."""
        chosen = self.config.weights_from in ("softmax_of_selected", "sigmoid_of_selected")
        return self.config.score == "softmax" and not chosen

    def covers(self) -> bool:
        """Whether there is nothing on the way that needs the intervals of all experts."""
        config, narrow = self.config, store_unit(self.form) > 0.0
        rule = config.renormalize or Renormalize()
        if config.weights_from == "masked_scores" and (
            narrow or self.numerics.select_bits is not None or config.score == "identity"
        ):
            return False
        if self.of_all:
            return self.form is not FLOAT16 and rule.order <= _ORDER
        if config.score == "sqrtsoftplus" and self.numerics.softplus == "absolute":
            return False  # 0 / 0 at the others
        return config.score != "identity" or config.weights_from != "scores"

    def fine(self, ids: Ids) -> Bools:
        """Return the rows ``[T]`` in which all is decided, by far."""
        config, rule = self.config, self.config.renormalize
        if self.of_all:
            own = np.take_along_axis(self.shares, ids, axis=1)
            least = _NORM if config.weights_from == "masked_scores" else _SHARE
            fine: Bools = (own.min(axis=1) >= least) & (own.max(axis=1) >= _NORM)
            return fine & _off_floor(rule, own) if rule is not None else fine
        if config.score == "sqrtsoftplus" and self.form is FLOAT16:
            return np.asarray((np.abs(self.exact) <= 8.0).all(axis=1))  # else 0 / 0 at the others
        return np.ones(len(ids), dtype=bool)

    @cached_property
    def exact(self) -> Floats:
        """The logits after the logit op, in exact arithmetic."""
        return logit_op(self.config, self.logits.lo)

    @cached_property
    def numerators(self) -> Floats:
        """The numerators of a softmax of all."""
        exponents = self.exact - self.exact.max(axis=1, keepdims=True)
        made: Floats = np.exp(exponents, out=exponents)
        return made

    @cached_property
    def totals(self) -> Floats:
        """Their sums, ``[T, 1]``."""
        total: Floats = self.numerators.sum(axis=1, keepdims=True)
        return total

    @cached_property
    def shares(self) -> Floats:
        """The softmax of all."""
        return self.numerators / self.totals

    @property
    def widths(self) -> tuple[float, float, float]:
        """What numerators, their sum and shares are off by in proportion, at the least."""
        form, count = self.form, self.config.num_experts
        many = additions(count, form)
        if store_unit(form):
            own = elementary(form) + ROUNDING
            units = (own, many + own, many + division(form))
        else:
            own = ELEMENTARY + ROUNDING
            units = (own + DIVISION, many + own, many + DIVISION)
        less, more, most = (_proportion(each, form) for each in units)
        return less, more, most

    def scores_at(self, expert_ids: Ids) -> ScoreBounds:
        """Return bounds within those of the scores."""
        if not self.of_all:
            return super().scores_at(expert_ids)
        own, total, share = self.widths
        return ScoreBounds(
            scores=_off(np.take_along_axis(self.shares, expert_ids, axis=1), share),
            numerators=_off(np.take_along_axis(self.numerators, expert_ids, axis=1), own),
            denominator=_off(self.totals, total),
        )

    @cached_property
    def competing(self) -> Interval:
        """What competes in selection, by wider bounds than these."""
        softmax, bias = self.config.score == "softmax", self.selection_bias
        if softmax:
            values = self.numerators if bias is None else self.shares
        else:
            values = SCORE_FUNCTIONS[self.config.score](self.exact)
        size = np.abs(values) * _WIDER
        if bias is not None:
            values, size = values + bias, size + np.abs(bias) * _WIDER
        return Interval(values - size, values + size)


def _proportion(units: float, form: FloatFormat) -> float:
    return float(-np.expm1(units * np.log1p(-form.unit_roundoff))) * _LESS


def _off(values: Floats, proportion: float) -> Interval:
    return Interval(values * (1.0 - proportion), values * (1.0 + proportion))


def _off_floor(rule: Renormalize, own: Floats) -> Bools:
    """Return the rows whose norm is far from its floor, on either side."""
    if not rule.floor:
        return np.ones(len(own), dtype=bool)
    norm = (own**rule.order).sum(axis=1) ** (1.0 / rule.order) + rule.eps
    return np.asarray((norm >= _FLOOR * rule.floor) | (norm * _FLOOR <= rule.floor))

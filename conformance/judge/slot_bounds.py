"""Bounds between logits and weights that lie within the permitted ones, at few numbers a row.

Derivations: docs/spec/judging.md, "What certainly lies within".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge.balls import UNIT
from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
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
from moe_routing.conformance.judge.logit_points import LogitPoints
from moe_routing.conformance.judge.quotients import ScoreBounds
from moe_routing.implementations import Numerics
from moe_routing.reference import Renormalize
from moe_routing.reference.formats import FLOAT16, Bools, FloatFormat, Floats, Ids
from moe_routing.reference.logits import logit_op
from moe_routing.reference.scores import SCORE_FUNCTIONS

LESS = 1.0 - 2.0**-10
"""What is used of a width; the rest is more than float64 loses in it, and than what underflows."""

_UNITS = 1400.0
"""Beside one for each expert, more units than scores of float32 are off by, of calm logits
(``certain_rows``)."""

_SHARE, _NORM = 2.0**-60, 2.0**-20
"""A selected score, and the greatest of a row, above which nothing is lost or undecided."""

_MOST = 0.5
"""How far off logits may be, for what is far from open to stay decided."""

_ORDER, _FLOOR = 2.0, 4.0
"""The order of a norm, and how far it is from its floor in proportion, for that to hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotBounds(SelectionBounds):
    """Bounds of the selected experts, no wider than permitted, from ``points``: logits.

    Of own logits only a softmax of all experts has narrower ones. What competes is wider: it says
    which groups are kept.
    """

    points: LogitPoints

    @classmethod
    def of(cls, bounds: Bounds, points: LogitPoints) -> SlotBounds:
        """Begin with the logits, all of which are judged."""
        return cls(
            config=bounds.config,
            selection_bias=bounds.inputs.selection_bias,
            numerics=bounds.numerics,
            form=bounds.score_format,
            logits=points.least,
            judged=np.ones(len(points.logits), dtype=bool),
            points=points,
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
            narrow or self.numerics != Numerics() or config.score == "identity"
        ):
            return False
        if not self.points.most <= _MOST:
            return False
        selected = config.weights_from == "softmax_of_selected"
        if self.points.off is not None and narrow and (self.of_all or selected):
            return False  # its error jumps at powers of two
        inside = self.of_all or self.points.off is not None
        if inside and (self.form is FLOAT16 or rule.order > _ORDER):
            return False
        if config.score == "sqrtsoftplus" and self.numerics.softplus == "absolute":
            return False  # 0 / 0 at the others
        return config.score != "identity" or config.weights_from != "scores"

    def fine(self, ids: Ids) -> Bools:
        """Return the rows ``[T]`` in which all is decided, by far."""
        if self.of_all or self.points.off is not None:
            return self._far_from_open(ids)
        if self.config.score == "sqrtsoftplus" and self.form is FLOAT16:
            return np.asarray((np.abs(self.exact) <= 8.0).all(axis=1))  # else 0 / 0 at the others
        return np.ones(len(ids), dtype=bool)

    def _far_from_open(self, ids: Ids) -> Bools:
        config, rule = self.config, self.config.renormalize
        if config.weights_from == "softmax_of_selected":
            own = np.ones((len(ids), 1))
        elif self.of_all:
            own = np.take_along_axis(self.shares, ids, axis=1)
        else:
            sigmoid = config.weights_from == "sigmoid_of_selected"
            score = SCORE_FUNCTIONS["sigmoid" if sigmoid else config.score]
            own = score(np.take_along_axis(self.exact, ids, axis=1))
        least = _NORM if config.weights_from == "masked_scores" else _SHARE
        fine: Bools = (own.min(axis=1) >= least) & (own.max(axis=1) >= _NORM)
        return fine & _off_floor(rule, own) if rule is not None else fine

    @cached_property
    def exact(self) -> Floats:
        """The logits after the logit op, in exact arithmetic."""
        return logit_op(self.config, self.points.logits)

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

    @cached_property
    def moved(self) -> Floats | None:
        """The proportion ``[T, E]`` that a numerator falls by with its logit; None: by none."""
        off, config = self.points.off, self.config
        if off is None:
            return None
        off = off * abs(config.logit_multiplier)
        if (cap := config.logit_softcap) is not None:
            off = off * (1.0 - np.square(self.exact / cap)) * np.exp(-2.0 * off / cap)
        fallen: Floats = off * (1.0 - off / 2.0)  # less than 1 - exp(-off)
        return fallen

    @property
    def units(self) -> tuple[float, float, float]:
        """What numerators, their sum and shares are off by in proportion, by roundings alone."""
        form, many = self.form, additions(self.config.num_experts, self.form)
        if store_unit(form):
            own = elementary(form) + ROUNDING
            units = (own, many + own, many + division(form))
        else:
            own = ELEMENTARY + ROUNDING
            units = (own + DIVISION, many + own, many + DIVISION)
        less, more, most = (_proportion(each, form) for each in units)
        return less, more, most

    def scores_at(self, expert_ids: Ids) -> ScoreBounds:
        """Return bounds within those of the scores; of the same ids they are made once."""
        ids, known = self.__dict__.get("_scores_at", (None, None))
        made: ScoreBounds | None = known if ids is expert_ids else None
        if made is None:
            made = self._scores_of(expert_ids) if self.of_all else super().scores_at(expert_ids)
            self.__dict__["_scores_at"] = expert_ids, made
        return made

    def _scores_of(self, expert_ids: Ids) -> ScoreBounds:
        """Return bounds within those of a softmax of all."""
        own, total, share = self.units
        shares = np.take_along_axis(self.shares, expert_ids, axis=1)
        one: Floats = np.zeros((1, 1))
        all_, mixed = one, one
        if self.moved is not None:
            one = np.take_along_axis(self.moved, expert_ids, axis=1)
            all_ = (self.shares * self.moved).sum(axis=1, keepdims=True)
            most = self.moved.max(axis=1, keepdims=True)
            mixed = np.maximum(one + all_ - 2.0 * shares * one, 0.0) * (1.0 - most)
        numerators = np.take_along_axis(self.numerators, expert_ids, axis=1)
        return ScoreBounds(
            scores=_off(shares, _both(share, mixed)),
            numerators=_off(numerators, _both(own, one)),
            denominator=_off(self.totals, _both(total, all_)),
        )

    @cached_property
    def competing(self) -> Interval:
        """What competes in selection, by wider bounds than these."""
        softmax, bias = self.config.score == "softmax", self.selection_bias
        if softmax:
            values = self.numerators if bias is None else self.shares
        else:
            values = SCORE_FUNCTIONS[self.config.score](self.exact)
        units = 2.0 * (self.config.num_experts + _UNITS) * UNIT
        wider = units + 2.0 * float(np.expm1(2.0 * self.points.most))
        size = np.abs(values) * wider
        if bias is not None:
            values, size = values + bias, size + np.abs(bias) * units
        return Interval(values - size, values + size)


def _proportion(units: float, form: FloatFormat) -> float:
    return float(-np.expm1(units * np.log1p(-form.unit_roundoff))) * LESS


def _both(one: float, other: Floats) -> Floats:
    """Return what two proportions take off, one after the other."""
    return one + other * (LESS - one)


def _off(values: Floats, proportion: Floats) -> Interval:
    return Interval(values * (1.0 - proportion), values * (1.0 + proportion))


def _off_floor(rule: Renormalize, own: Floats) -> Bools:
    """Return the rows whose norm is far from its floor, on either side."""
    if not rule.floor:
        return np.ones(len(own), dtype=bool)
    norm = (own**rule.order).sum(axis=1) ** (1.0 / rule.order) + rule.eps
    return np.asarray((norm >= _FLOOR * rule.floor) | (norm * _FLOOR <= rule.floor))

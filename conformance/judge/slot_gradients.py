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
from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.gradient_balls import added, around, less, times, weighted_rest
from moe_routing.conformance.judge.intervals import Interval, store_unit
from moe_routing.conformance.judge.logit_gradients import Way, stored_in, stored_logits
from moe_routing.conformance.judge.logit_points import LogitPoints
from moe_routing.conformance.judge.quotients import ScoreBounds
from moe_routing.conformance.judge.slot_bounds import LESS, SlotBounds
from moe_routing.reference.formats import Bools, Floats, Ids


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
    bounds: Bounds, points: LogitPoints, ids: Ids, cotangent: Floats
) -> SlotGradients | None:
    """Return balls within those permitted, of calm logits and distinct ``ids``; else None."""
    later = SlotBounds.of(bounds, points)
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
    units = later.units[2] + 2.0 * (UNIT + store_unit(form)) + UNIT + out
    factor: Any = 1.0
    if config.logit_softcap is not None:
        factor = 1.0 - np.square(later.exact / config.logit_softcap)
    shares = later.shares * (factor * config.logit_multiplier)
    return -shares * mean.mid, np.abs(shares) * (LESS * (mean.rad + units * np.abs(mean.mid)))


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

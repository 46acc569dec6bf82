"""Balls of the gradient of the logits, back from the weights (docs/spec/judging.md, "Gradients").

The path is that of automatic differentiation, the longest honest one: a closed form, a fused
kernel or float64 inside errs less, and lies within.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_routing.conformance.judge.balls import Ball, rounded
from moe_routing.conformance.judge.bounds import Bounds, SelectionBounds
from moe_routing.conformance.judge.gather import gather, selected_softmax
from moe_routing.conformance.judge.gradient_balls import (
    ONE,
    added,
    around,
    at_slots,
    constant,
    ends,
    inside,
    less,
    of_square,
    over,
    scattered,
    times,
    undecided,
    weighted_rest,
    where,
    within,
)
from moe_routing.conformance.judge.gradient_norms import through_norm
from moe_routing.conformance.judge.intervals import Interval, store_unit
from moe_routing.conformance.judge.logits import format_of
from moe_routing.conformance.judge.quotients import ScoreBounds
from moe_routing.conformance.judge.scores import sigmoid_bounds
from moe_routing.reference import Renormalize
from moe_routing.reference.formats import Bools, FloatFormat, Floats, Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class LogitGradients:
    """The permitted gradients of the logits, ``[T, E]``, and where anything is decided, ``[T]``."""

    ball: Ball
    decided: Bools


def logit_gradients(
    bounds: Bounds, later: SelectionBounds, ids: Ids, cotangent: Floats
) -> LogitGradients:
    """Bound the gradient of the logits at ``ids [T, K]``, all in range.

    ``later`` are the bounds of the stages after the logits.
    """
    with np.errstate(all="ignore"):
        ball = Way(bounds, later, ids).back(cotangent)
    stored = stored_logits(bounds, undecided(ball, ~bounds.judged[:, None]))
    decided = np.asarray(stored.decided.all(axis=1))  # one NaN may reach the whole row
    return LogitGradients(ball=undecided(stored, ~decided[:, None]), decided=decided)


def stored_in(bounds: Bounds) -> FloatFormat:
    """Return the format in which a gradient of logits may be stored."""
    given = bounds.inputs.logits is not None  # then their gradient is of their own dtype
    return format_of("input" if given else bounds.config.logits_dtype, bounds.inputs)


def stored_logits(bounds: Bounds, ball: Ball) -> Ball:
    """Store the gradient of the logits at the end of its way."""
    form = stored_in(bounds)
    return within(rounded(inside(ball, bounds.score_format), form), form)


@dataclass(frozen=True, eq=False)
class Way:
    """The way back from the weights at ``ids`` to the logits."""

    bounds: Bounds
    later: SelectionBounds
    ids: Ids

    @property
    def form(self) -> FloatFormat:
        """The least precise format on the way."""
        return self.bounds.score_format

    @property
    def operated(self) -> Interval:
        """The logits after the logit op, of all experts."""
        return self.later.operated

    @property
    def scores(self) -> ScoreBounds:
        """The scores of all experts."""
        return self.later.scores

    def back(self, cotangent: Floats) -> Ball:
        """Return the gradient of the logits."""
        at = self._unscaled(np.take_along_axis(cotangent, self.ids, axis=1))
        return self._operated(self._scores(at))

    def _unscaled(self, cotangent: Floats) -> Ball:
        """Multiply by each expert's own scale, and by the routed scaling factor."""
        config, at = self.bounds.config, Ball.exact(cotangent)
        scales = self.bounds.inputs.per_expert_scale
        if scales is not None:
            at = times(at, Ball.exact(scales[self.ids]), self.form)
        if config.scale != 1.0:
            at = times(at, constant(config.scale, self.form), self.form)
        return at

    def _scores(self, at: Ball) -> Ball:
        """Return the gradient of the operated logits, from that of the weights."""
        config = self.bounds.config
        match config.weights_from:
            case "softmax_of_selected":
                return self._of_selected_softmax(at)
            case "sigmoid_of_selected":
                chosen = self.later.operated_at(self.ids)
                scores = sigmoid_bounds(chosen, self.form, self.bounds.numerics)
                return self._scattered(self._by_sigmoid(self._normed(at), scores))
        if config.score == "softmax":
            return self._by_softmax(at)
        dense = self._scattered(self._normed(at))
        if config.score == "sigmoid":
            return self._by_sigmoid(dense, self.scores.scores)
        return self._by_sqrtsoftplus(dense)

    def _normed(self, at: Ball) -> Ball:
        """Return the gradient of the gathered weights, in units of their numerators."""
        rule, masked = self.bounds.config.renormalize, self.bounds.config.weights_from
        if rule is not None:
            found = gather(self.bounds, self.later, self.ids)
            at = through_norm(rule, at, found.numerators, found.denominator, self.form).gradient
            at = undecided(at, ~found.decided[:, None])
        return self._masked(at) if masked == "masked_scores" else at

    def _masked(self, at: Ball) -> Ball:
        """Return 0 for the experts of groups that are not kept, and nothing where that is open."""
        groups = self.bounds.config.groups
        if groups is None:
            return at
        chosen = self.ids // (self.bounds.config.num_experts // groups.count)
        kept, possible = (np.take_along_axis(m, chosen, axis=1) for m in self.later.kept_groups)
        zero = Ball.exact(np.zeros_like(at.mid))
        return undecided(where(kept, at, zero), possible & ~kept)

    def _scattered(self, at: Ball) -> Ball:
        return scattered(at, self.ids, self.bounds.config.num_experts, self.form)

    def _of_selected_softmax(self, at: Ball) -> Ball:
        """Return the gradient of the logits through a softmax of the selected ones.

        Of logits that may all be -inf it is 0 / 0.
        """
        operated = self.later.operated_at(self.ids)
        chosen, lost = selected_softmax(operated, self.form), operated.lo.max(axis=1) == -np.inf
        weights, at = around(chosen.scores), undecided(self._normed(at), lost[:, None])
        mean = added(times(at, weights, self.form), self.form)
        return self._scattered(weighted_rest(weights, at, mean, self.form))

    def _by_softmax(self, at: Ball) -> Ball:
        """Return the gradient of the logits through a softmax of all of them.

        With a norm, ``p (g - mean)`` is ``n g' - p mean``, ``g'`` in units of the numerators n.
        """
        config, scores = self.bounds.config, around(self.later.scores.scores)
        if config.renormalize is None:
            dense = self._scattered(self._normed(at))
            mean = added(times(dense, scores, self.form), self.form)
            return weighted_rest(scores, dense, mean, self.form)
        own = at_slots(around(self.later.scores.numerators), self.ids)
        direct = times(self._normed(at), own, self.form)
        mean = added(direct, self.form)
        found = less(self._scattered(direct), times(scores, mean, self.form), self.form)
        return self._or_of_selected(at, found)

    def _or_of_selected(self, at: Ball, found: Ball) -> Ball:
        """Allow, in 16 bits, for the softmax of the selected that a renormalised softmax is."""
        if self.bounds.config.renormalize != Renormalize() or not self._narrow:
            return found
        weights = around(selected_softmax(self.later.operated_at(self.ids), self.form).scores)
        mean = added(times(at, weights, self.form), self.form)
        other = self._scattered(weighted_rest(weights, at, mean, self.form))
        a, b = ends(found), ends(other)
        return around(Interval(np.minimum(a.lo, b.lo), np.maximum(a.hi, b.hi)))

    @property
    def _narrow(self) -> bool:
        return store_unit(self.form) > 0.0

    def _by_sigmoid(self, at: Ball, scores: Interval) -> Ball:
        """Multiply by ``s (1 - s)``.

        The slope may be the square of a reciprocal, which may underflow.
        """
        s = around(scores)
        found = times(times(at, less(ONE, s, self.form), self.form), s, self.form)
        return Ball(found.mid, found.rad + of_square(scores.lo, at.reach, found.reach, self.form))

    def _by_sqrtsoftplus(self, at: Ball) -> Ball:
        """Divide by twice the root, and multiply by the sigmoid that a softplus' slope is."""
        roots = around(self.scores.scores)
        twice = Ball(2.0 * roots.mid, 2.0 * roots.rad)
        slope = sigmoid_bounds(self.operated, self.form, self.bounds.numerics)
        return times(over(at, twice, self.form), around(slope), self.form)

    def _operated(self, at: Ball) -> Ball:
        """Go back through the softcap, whose slope is ``1 - tanh**2``, and the multiplier."""
        config, form = self.bounds.config, self.form
        if config.logit_softcap is not None:
            cap = constant(config.logit_softcap, form)
            tanh = over(around(self.operated), cap, form)
            slope = less(ONE, times(tanh, tanh, form), form)
            at = over(times(times(at, cap, form), slope, form), cap, form)
        if config.logit_multiplier != 1.0:
            at = times(at, constant(config.logit_multiplier, form), form)
        return at

"""Tokens with defined scores, so that more than their ids can be judged (docs/spec/judging.md)."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.logits import LogitBounds, format_of
from moe_routing.conformance.judge.scores import operated_bounds
from moe_routing.reference import RouterConfig, RouterInputs, Stages
from moe_routing.reference.formats import FLOAT32, Bools, Floats
from moe_routing.reference.quick import surely_finite

_LOG2_E = float(np.log2(np.e))


def judged_tokens(
    config: RouterConfig, inputs: RouterInputs, logits: LogitBounds, reference: Stages
) -> Bools:
    """Return which tokens ``[T]`` have defined scores that no stage may push out of range.

    A softcap saturates, so that what overflows before it does no harm.
    """
    fine = defined(config, reference.operated) & ~_sums_leave_range(config, inputs, reference)
    form, exponent = format_of(config.scores_dtype, inputs), _exponent(config)
    if not logits.stay_within(form, abs(config.logit_multiplier) * exponent):
        operated = operated_bounds(config, logits.permitted, form)
        fine &= ~logits.overflows.any(axis=1) & ~(_magnitude(operated) * exponent > form.largest)
    groups = config.groups
    if groups is not None and groups.top > 1 and not groups.from_each:
        biased = reference.biased  # a group may sum to inf - inf
        fine &= ~((biased == np.inf).any(axis=1) & (biased == -np.inf).any(axis=1))
    return fine


def defined(config: RouterConfig, logits: Floats) -> Bools:
    """Return which tokens have defined scores: no NaN, and no softmax of infinities alone.

    ``logits`` are those after the logit op. A softmax with +inf, or of -inf alone, is NaN;
    sqrtsoftplus of +inf is infinite, and infinite weights have no ratio.
    """
    greatest: Floats = logits.max(axis=1)  # NaN where any is
    if config.score == "softmax" or config.weights_from == "softmax_of_selected":
        return np.isfinite(greatest)
    return greatest < np.inf if config.score == "sqrtsoftplus" else ~np.isnan(greatest)


def _exponent(config: RouterConfig) -> float:
    """Return what logits may be multiplied with: a softmax may take powers of two, by log2(e)."""
    softmax = config.score == "softmax" or config.weights_from == "softmax_of_selected"
    return _LOG2_E if softmax else 1.0


def _sums_leave_range(config: RouterConfig, inputs: RouterInputs, reference: Stages) -> Bools:
    """Return where the sum with the bias or that of a group may be infinite."""
    form = format_of(config.scores_dtype, inputs)
    summed = form if inputs.selection_bias is None else FLOAT32
    top = _summed(config)
    sums = top * _magnitude(Interval.point(reference.biased)) * (1.0 + top * summed.unit_roundoff)
    return sums > summed.largest


def _summed(config: RouterConfig) -> int:
    """Return how many scores a group sums; 1: none."""
    if config.groups is None or config.groups.from_each:
        return 1
    return min(config.groups.top, config.experts_per_group)


def _magnitude(bounds: Interval) -> Floats:
    """Return the largest magnitude ``[T]`` of the finite endpoints of each row."""
    largest: Floats = np.maximum(
        bounds.hi.max(axis=1, initial=0.0), -bounds.lo.min(axis=1, initial=0.0)
    )
    if not surely_finite(largest):
        finite = bounds.each(lambda x: np.where(np.isfinite(x), np.abs(x), 0.0))
        largest = np.maximum(finite.lo, finite.hi).max(axis=1, initial=0.0)
    return largest

"""Events of a selection bias: its rounding to the dtype of the inputs decides, or its sum is 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.biases import bias_decides
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.events.sizes import ladder
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.conformance.judge import Bounds, Interval
from moe_routing.conformance.judge.logits import format_of
from moe_routing.conformance.judge.scores import competing_bounds
from moe_routing.conformance.judge.selection import certain_groups
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import INPUT_FORMATS, Bools, Floats

Bias = npt.NDArray[np.float32]


def _rounding_decides(bounds: Bounds) -> bool:
    """Return whether some right router would choose otherwise if it rounded its bias."""
    bias, inputs = bounds.inputs.selection_bias, bounds.inputs
    if bias is None or inputs.expert_table is not None or not bounds.judged.any():
        return False
    rounded = INPUT_FORMATS[inputs.dtype].round(bias).astype(np.float32)
    if (rounded == bias).all():
        return False
    now, then = (_competing(bounds, each) for each in (bias, rounded))
    if now is None or then is None or (now[1] != then[1]).any():
        return True  # the groups are in doubt, and with them more than a pair of experts
    moves = _Moves(bias=bias, rounded=rounded, kept=now[1])
    return _may_swap(now[0], then[0], moves, bounds.config.top_k)


def _competing(bounds: Bounds, bias: Bias) -> tuple[Interval, Bools] | None:
    """Return what judged tokens compete with, and the kept experts; None: these are in doubt."""
    config, judged = bounds.config, bounds.judged
    form = format_of(config.scores_dtype, bounds.inputs)
    scores = bounds.from_reference.scores
    values = competing_bounds(scores, bias, form, bounds.numerics).rows(np.flatnonzero(judged))
    if config.groups is None:
        return values, np.ones(values.lo.shape, dtype=bool)
    kept, certain = certain_groups(values, config.groups, bounds.from_reference.group_format)
    if not certain.all():
        return None
    kept = np.repeat(kept, config.experts_per_group, axis=1)
    fill = config.groups.fill
    return Interval(np.where(kept, values.lo, fill), np.where(kept, values.hi, fill)), kept


@dataclass(frozen=True, kw_only=True)
class _Moves:
    """How rounding moves the biases of the experts, ``kept [T, E]`` of which compete."""

    bias: Bias
    rounded: Bias
    kept: Bools

    def may_reorder(self, t: int, now: Interval, then: Interval) -> Bools:
        """Return ``[E, E]``: which experts may gain on which others, in token ``t``.

        Where the winner's bias did not grow and the loser's did not shrink, monotone rounding
        keeps them in order.
        """
        up, down = ~(self.rounded <= self.bias), ~(self.rounded >= self.bias)
        may_gain: Bools = (up[:, None] | down) & ~self._together(t, now, then)
        return may_gain

    def _together(self, t: int, now: Interval, then: Interval) -> Bools:
        """Return which pairs keep their order since they share a bias, and its rounding.

        Coarser float32 sums would tie what differed, and a tie falls to the lower id.
        """
        own = np.where(self.kept[t], self.bias, np.nan)
        least = np.maximum(np.maximum(now.lo[t], -now.hi[t]), 0.0)
        most = np.maximum(np.abs(then.lo[t]), np.abs(then.hi[t]))
        as_fine = _step(most) <= _step(least)  # infinities have no step
        in_doubt = now.hi[t][:, None] >= now.lo[t]
        together: Bools = (own[:, None] == own) & as_fine[:, None] & as_fine & in_doubt
        return together


def _step(values: Floats) -> Floats:
    """Return the distance from float32 values of sums to the next."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.spacing(values.astype(np.float32)).astype(np.float64)


def _may_swap(now: Interval, then: Interval, moves: _Moves, top_k: int) -> bool:
    """Return whether an expert may win ``then`` that must lose to another ``now``, in any token."""
    experts = now.lo.shape[1]
    if top_k >= experts:
        return False
    may_win = then.hi >= _nth_best(then.lo, top_k)
    may_lose = then.lo <= _nth_best(then.hi, top_k + 1)
    below = np.where(may_win, now.lo, np.inf).min(axis=1)
    above = np.where(may_lose, now.hi, -np.inf).max(axis=1)
    for t in np.flatnonzero(below < above).tolist():
        pairs = may_win[t][:, None] & may_lose[t] & moves.may_reorder(t, now, then)
        pairs &= (now.lo[t][:, None] < now.hi[t]) & (then.hi[t][:, None] >= then.lo[t])
        if pairs.any():
            return True
    return False


def _nth_best(values: Floats, n: int) -> Floats:
    best: Floats = np.sort(values, axis=1)[:, [values.shape[1] - n]]
    return best


@event(
    "rounded-bias",
    "rounding the selection bias to the dtype of the inputs may change which experts win",
    _rounding_decides,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    near, far = 7.0 + 3 * 2.0**-11, 2.0**-9  # one number with 7 in 16 bits: then the others win
    yield from table_cases(capabilities, [[0.0, far]], top_k=1, selection_bias=[near, 7.0])
    yield from table_cases(
        capabilities, [[0.0, far, far, 0.0]], top_k=2, selection_bias=[near, 7.0, 7.0, 0.0]
    )


@event(
    "bias-sums-to-0",
    "a deciding selection bias whose sum is 0, as that of a centred one is",
    lambda b: bias_decides(b) and float(b.inputs.selection_bias.sum()) == 0.0,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    for top_k, least in ((2, 4), (1, 4), (8, 16)):
        size = fitting_experts(capabilities, least)
        rows, bias = ladder(2, size) * min(1.0, 16.0 / size), np.zeros(size)
        bias[[rows[0].argmax(), rows[0].argmin()]] = -2.0, 2.0
        yield from table_cases(capabilities, rows, top_k=top_k, selection_bias=bias)

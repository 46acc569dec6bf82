"""The event of a selection bias whose rounding to the dtype of the inputs may change who wins."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.judge import Bounds, Interval
from moe_routing.conformance.judge.logits import format_of
from moe_routing.conformance.judge.scores import competing_bounds
from moe_routing.conformance.judge.selection import certain_groups
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import INPUT_FORMATS, Floats

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
    may_gain = ~(rounded <= bias), ~(rounded >= bias)
    return _may_swap(now[0], then[0], *may_gain, bounds.config.top_k)


def _competing(bounds: Bounds, bias: Bias) -> tuple[Interval, npt.NDArray[np.bool_]] | None:
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


def _may_swap(
    now: Interval,
    then: Interval,
    up: npt.NDArray[np.bool_],
    down: npt.NDArray[np.bool_],
    top_k: int,
) -> bool:
    """Return whether an expert may win ``then`` that must lose to another ``now``, in any token.

    ``up`` marks the experts whose bias grew, ``down`` those whose bias shrank: where the winner's
    did not grow and the loser's did not shrink, monotone rounding keeps them in order.
    """
    experts = now.lo.shape[1]
    if top_k >= experts:
        return False
    may_win = then.hi >= _nth_best(then.lo, top_k)
    may_lose = then.lo <= _nth_best(then.hi, top_k + 1)
    below = np.where(may_win, now.lo, np.inf).min(axis=1)
    above = np.where(may_lose, now.hi, -np.inf).max(axis=1)
    for t in np.flatnonzero(below < above):
        pairs = may_win[t][:, None] & may_lose[t] & (up[:, None] | down)
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

"""Which weights of shared slots rounding can explain (docs/spec/judging.md)."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.judge.bounds import Bounds
from moe_routing.conformance.judge.intervals import ROUNDING, Interval, store_unit, underflow
from moe_routing.reference import SharedSlots


def shared_weight(bounds: Bounds, shared: SharedSlots) -> Interval:
    """Bound the weight of a shared slot, of no shape: the constant, by way of the norm or not.

    The longest honest way is the sum of the routed weights over the scale, over that sum again,
    times the scale: three roundings where scores are stored, that of the constant, and the cast.
    """
    form, stored = bounds.score_format, bounds.weight_format
    one = np.full((1, 1), shared.weight)
    wide = Interval(one, one).widen(4 * ROUNDING, form.unit_roundoff, underflow(form))
    cast = 0 if store_unit(form) else ROUNDING
    return wide.widen(cast, stored.unit_roundoff, underflow(stored))

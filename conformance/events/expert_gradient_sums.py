"""Events of experts' gradients: sums that are exact, and longer than 16 bits hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.events.expert_gradients import learned
from moe_routing.conformance.judge.expert_gradients import Learning
from moe_routing.reference import expert_gradients

learned(
    "exact",
    "a gradient of a matrix that no order rounds, a sum whose parts are larger than 16 bits hold",
    lambda each: _exact_sum(each),
    ids=((0, 1), (1, 0), (0, 1), (1, 0)),
    exact=True,
    activations=("relu",),
    sizes=(8, 8),
)

learned(
    "sum-in-16-bits",
    "a gradient of a matrix in 16 bits that is off by most of what is permitted if its sum is "
    "stored after each route",
    lambda each: each.inputs.dtype != "float32" and _steps_show(each),
    ids=((0, 1), (1, 0), (0, 1), (1, 0)),
    exact=True,
    sizes=(8, 8),
)


def _steps_show(learning: Learning) -> bool:
    for name, found in learning.sums_in_steps.items():
        ball = learning.permitted[name]
        if (ball.decided & (np.abs(found - ball.mid) > 0.75 * ball.rad)).any():
            return True
    return False


def _exact_sum(learning: Learning) -> bool:
    """Whether a gradient of up is exact, and much smaller than the parts that it is a sum of."""
    ball, due = learning.permitted["up_weight"], np.asarray(learning.reference.up_weight)
    firm = (ball.rad == 0.0) & (due != 0.0)
    if not firm.any() or learning.inputs.num_tokens < 3:
        return False
    parts = replace(learning.inputs, hidden=np.abs(learning.inputs.hidden))
    first = np.zeros_like(learning.cotangent)
    first[0] = learning.cotangent[0]
    alone = expert_gradients(learning.config, parts, first.astype(np.float32))
    return bool((firm & (np.abs(np.asarray(alone.up_weight)) > 256.0 * np.abs(due))).any())

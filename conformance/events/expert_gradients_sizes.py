"""Events of experts' gradients: sizes past one block of a kernel."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.events.expert_gradients import learned
from moe_routing.conformance.events.registry import FAMILIES
from moe_routing.conformance.judge.expert_gradients import Learning
from moe_routing.reference.activations import ACTIVATIONS

FAMILIES["learned-large"] = "gradients of experts in sizes past one block of a kernel"


def _busy(learning: Learning) -> bool:
    return bool(np.asarray(learning.reference.up_weight).any())


learned(
    "large:130-columns",
    "gradients of hidden states of 130 columns or more",
    lambda each: each.inputs.hidden_size >= 130 and _busy(each),
    sizes=(130, 4),
)
learned(
    "large:130-width",
    "gradients of experts of a width of 130 or more",
    lambda each: each.inputs.width >= 130 and _busy(each),
    sizes=(4, 130),
)
learned(
    "large:144-columns",
    "gradients of 144 columns and a width of 80, multiples of 16 and of no block",
    lambda each: each.inputs.hidden_size == 144 and each.inputs.width == 80 and _busy(each),
    ids=((1, 0), (0, 1)),
    count=2,
    sizes=(144, 80),
)
learned(
    "large:130-experts",
    "gradients of 130 experts, with routes to each",
    lambda each: each.layer.counts.size == 130 and bool((each.layer.counts > 0).all()),
    ids=np.arange(130).reshape(65, 2),
    count=130,
)
learned(
    "large:1030-routes",
    "gradients of an expert with 1,030 routes",
    lambda each: bool((each.layer.counts == 1030).any()) and _busy(each),
    ids=np.tile([[1, 2]], (1030, 1)),
)
learned(
    "large:300-experts",
    "gradients of 300 experts, and of a routing weight in a slot past the 16th",
    lambda each: (
        each.layer.counts.size == 300
        and each.inputs.top_k > 16
        and bool(np.asarray(each.reference.weights)[:, 16:].any())
    ),
    ids=299 - np.arange(33) - 33 * np.arange(2)[:, None],
    count=300,
)
learned(
    "large:4100-routes",
    "gradients of an expert with 4,100 routes",
    lambda each: bool((each.layer.counts == 4100).any()) and _busy(each),
    ids=np.ones((4100, 1)),
    count=2,
    exact=True,
    activations=("relu", *ACTIVATIONS),
    sizes=(2, 1),
)

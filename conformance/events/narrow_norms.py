"""Events of norms: in 16 bits, made up by many experts; and below 1e-30, with nothing added."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.events.registry import event
from moe_routing.conformance.events.sizes import ladder
from moe_routing.conformance.generators.construct import table_cases
from moe_routing.conformance.generators.scenes import fitting_experts
from moe_routing.conformance.judge import Bounds
from moe_routing.conformance.judge.intervals import store_unit
from moe_routing.conformance.judge.weights import sum_bounds
from moe_routing.implementations import Capabilities
from moe_routing.reference.formats import FLOAT32


def least_shows(bounds: Bounds, top_k: int) -> bool:
    """Return whether the sum of ``top_k`` weights in 16 bits is wrong without its least."""
    config, rule = bounds.config, bounds.config.renormalize
    if rule is None or rule.order != 1.0 or rule.floor > 0.0 or config.top_k != top_k:
        return False
    apart = bounds.inputs.per_expert_scale is not None or bounds.inputs.expert_table is not None
    if not store_unit(bounds.score_format) or apart or config.scale == 0.0:
        return False
    weights = bounds.reference.weights
    sums = sum_bounds(bounds, bounds.from_reference, bounds.reference.expert_ids)
    total = weights.sum(axis=1)
    without = total * total / (total - np.abs(weights).min(axis=1) * np.sign(config.scale))
    shows = ~sums.permitted.contains(without) & sums.decided & bounds.judged
    return bool(shows.any())


def _norm_of(top_k: int) -> None:
    """Register the event of so many experts."""

    @event(
        f"narrow-norm-of-{top_k}",
        f"scores in 16 bits of {top_k} experts, renormalised, whose sum is wrong without the least",
        lambda b: least_shows(b, top_k),
    )
    def _(capabilities: Capabilities) -> Iterator[Case]:
        wants = {
            "renormalize": lambda rule: rule is not None and rule.order == 1.0 and not rule.floor,
            "dtypes": lambda kinds: kinds[1] == "input",
        }
        yield from table_cases(capabilities, np.zeros((1, 2 * top_k)), top_k=top_k, wants=wants)


_norm_of(16)
_norm_of(32)


def _is_least(bounds: Bounds) -> bool:
    """Return whether a norm is so small, and in the normal range of float32, and decides."""
    rule = bounds.config.renormalize
    if rule is None or rule.order != 1.0 or rule.eps + rule.floor or "softmax" in _made_by(bounds):
        return False
    norms = bounds.reference.gathered.sum(axis=1)
    known = bounds.only_reference & bounds.judged
    return bool((known & (norms < _LEAST) & (norms > 1024.0 * FLOAT32.tiny)).any())


def _made_by(bounds: Bounds) -> str:
    config = bounds.config
    return config.score if "scores" in config.weights_from else config.weights_from


_LEAST = 1e-30

_PAIRS = (("sigmoid", "scores"), ("identity", "sigmoid_of_selected"))


@event(
    "least-norm",
    "selected sigmoids that sum to less than 1e-30, to which nothing is added",
    _is_least,
)
def _(capabilities: Capabilities) -> Iterator[Case]:
    wants = {
        "renormalize": lambda rule: rule is not None and not rule.eps + rule.floor,
        "score and weights": lambda pair: pair in _PAIRS,
    }
    for top_k, least in ((2, 4), (1, 4), (8, 16)):
        size = fitting_experts(capabilities, least)
        rows = -72.0 - ladder(1, size) * 32.0 / size
        yield from table_cases(capabilities, rows, top_k=top_k, wants=wants)

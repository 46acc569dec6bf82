"""Near misses of the events of experts' gradients: all is there but the one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from near_experts import ABSENT, ran

from moe_routing.conformance.calls.expert_gradients import ExpertGradientCase
from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.generators.expert_gradients import exact_case, with_cotangent


def learned(case: ExpertsCase | None = None, *, none: bool = False) -> ExpertGradientCase:
    """Return a call with the cotangent of constructed cases, or with zeros."""
    made = with_cotangent(case or ran())
    if not none:
        return made
    zeros = np.zeros_like(made.inputs.cotangent)
    return replace(made, inputs=replace(made.inputs, cotangent=zeros))


def _changed(**arrays: Any) -> ExpertGradientCase:
    case = ran()
    return learned(replace(case, inputs=replace(case.inputs, **arrays)))


def _alike() -> ExpertGradientCase:
    """Return a call whose gate and up are one, and so are their gradients."""
    up = np.abs(ran().inputs.up_weight)
    return _changed(gate_weight=up, up_weight=up, hidden=np.abs(ran().inputs.hidden))


def _biased(*, down: bool) -> ExpertGradientCase:
    case = ran(drafted={"biased": True})
    bias = case.inputs.down_bias if down else None
    return learned(replace(case, inputs=replace(case.inputs, down_bias=bias)))


def _of_one_token() -> ExpertGradientCase:
    """Return an exact call whose large cotangents have nothing to cancel."""
    case = exact_case(np.random.default_rng(0), ran(((0, 1), (1, 0)), hidden=8, width=8))
    return replace(case, inputs=replace(case.inputs, cotangent=np.sign(case.inputs.cotangent)))


NEAR_EXPERT_GRADIENTS: dict[str, ExpertGradientCase] = {
    "learned-gated": _alike(),
    "learned-plain": learned(ran(gated=False), none=True),
    "learned-biases": _biased(down=False),
    "learned-weight-on-output": learned(ran(gated=False, weight_on="output")),
    "learned-weight-on-input": learned(ran(gated=False, weight_on="input")),
    "learned-square": learned(ran(width=3)),
    "learned-several": learned(none=True),
    "learned-row-offsets-past-16-bits": learned(ran([[1, 3]] * 128, hidden=256)),
    "learned-routes-above-256": learned(ran(np.tile([[1, 2]], (256, 1)))),
    "learned-zero-weight": learned(ran()),
    "learned-repeated": learned(ran([[1, 1], [0, 1]]), none=True),
    "learned-some-absent": learned(ran([[0, 1], [-1, -1]])),
    "learned-token-absent": learned(ran([[0, -1], [-1, 1]])),
    "learned-absent-not-finite": learned(ran(ABSENT)),
    "learned-empty": learned(ran([[0, 1], [2, 3]])),
    "learned-unchosen-nan": learned(ran()),
    "learned-no-tokens": learned(ran([[0, 1]])),
    "learned-exact": _of_one_token(),
    "learned-sum-in-16-bits": exact_case(np.random.default_rng(0), ran(hidden=8, width=8)),
}
"""A case for each event that stands alone, which does not show it."""

"""Near misses of the events of experts: all is there but the one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.events.experts import MIXED
from moe_routing.conformance.generators.experts import Draft
from moe_routing.reference import ExpertsConfig
from moe_routing.reference.formats import INPUT_FORMATS


def ran(
    ids: Any = MIXED,
    experts: int = 4,
    *,
    dtype: str = "float32",
    values: str = "eighths",
    hidden: int = 4,
    width: int = 4,
    drafted: dict[str, Any] | None = None,
    **config: Any,
) -> ExpertsCase:
    """Return the case of these experts."""
    made = ExpertsConfig(num_experts=experts, **{"activation": "relu", **config})
    form, sizes = INPUT_FORMATS[dtype], {"H": hidden, "F": width}
    draft = Draft(np.random.default_rng(1), made, form, values, sizes)
    return draft.case(np.array(ids, np.int64), **(drafted or {}))


def _changed(case: ExpertsCase, **arrays: Any) -> ExpertsCase:
    return replace(case, inputs=replace(case.inputs, **arrays))


def _alike() -> ExpertsCase:
    case = ran()
    return _changed(case, gate_weight=case.inputs.up_weight)


def _of_weights(weights: Any, case: ExpertsCase | None = None) -> ExpertsCase:
    case = case or ran()
    shape = case.inputs.weights.shape
    return _changed(case, weights=np.broadcast_to(np.float32(weights), shape))


def _without_down_bias() -> ExpertsCase:
    return _changed(ran(drafted={"biased": True}), down_bias=None)


THREE = ((2, 0, 1), (0, 3, 2))
ABSENT = ((2, -1), (1, 2), (-1, -1))

NEAR_EXPERTS: dict[str, ExpertsCase] = {
    "ran-limit": ran(activation="clamped-swiglu", limit=7.0, alpha=0.5),
    "ran-alpha": ran(activation="clamped-swiglu", limit=0.5, alpha=1.702),
    "ran-row-offsets-past-16-bits": ran([[1, 3]] * 128, hidden=256),
    "ran-inner-offsets-past-16-bits": ran([[1, 3]] * 128, width=256),
    "ran-matrix-offsets-past-16-bits": ran([[15, 0]], 18, hidden=64, width=64),
    "ran-gated": _alike(),
    "ran-plain": ran([[-1, -1]], gated=False),
    "ran-biases": _without_down_bias(),
    "ran-weight-on-output": ran(gated=False, weight_on="output"),  # relu: either side is one
    "ran-weight-on-input": ran(gated=False, weight_on="input"),
    "ran-exact": ran(values="normal"),
    "ran-chosen-inf": ran(drafted={"poison": "inf"}),
    "ran-exact-wide": ran(dtype="bfloat16", values="exact", hidden=256, width=8),
    "ran-square": ran(width=3),
    "ran-half-as-wide": ran(width=3),
    "ran-several": ran([[0], [1], [2]]),
    "ran-weights-differ": _of_weights([1.0, 0.5]),
    "ran-negative-weights": _of_weights([1.0, 0.5]),
    "ran-one-hot": _of_weights([1.0, 0.0, 0.5], ran(THREE)),
    "ran-one-hot-on-input": _of_weights([1.0, 0.0, 0.0], ran(THREE, weight_on="input")),
    "ran-zero-weight": _of_weights([1.0, 0.5]),
    "ran-zero-weight-overflow": _of_weights([1.0, 0.0]),
    "ran-repeated": ran([[0, 1], [1, 0]]),
    "ran-some-absent": ran([[0, 1], [-1, -1]]),
    "ran-token-absent": ran([[0, -1], [-1, 1]]),
    "ran-all-absent": ran([[-1, -1], [-1, 0]]),
    "ran-absent-first-and-last-not-finite": ran(ABSENT),
    "ran-unchosen-nan": ran(drafted={"poison": "inf"}),
    "ran-unchosen-inf": ran(drafted={"poison": "nan"}),
    "ran-first-empty": ran([[0, 1], [1, 2]]),
    "ran-last-empty": ran([[3, 1], [1, 2]]),
    "ran-every-other-empty": ran([[0, 2], [2, 0]], experts=5),
    "ran-one-token": ran([[0], [1], [2]]),
    "ran-one-expert": ran([[0], [0]], experts=1),
}
"""A case for each event that stands alone, which does not show it."""

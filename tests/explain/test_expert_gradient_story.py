"""The story of a wrong gradient of experts: which factor, slot or part is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from near_expert_gradients import learned
from near_experts import ran

from moe_routing.conformance.explain.expert_gradients import expert_gradient_failure
from moe_routing.conformance.trial.expert_gradients import learning_of
from moe_routing.reference import expert_gradients

Found = dict[str, Any]
IDS = ((0, 1), (1, 0), (-1, 0))


def _of(case: Any, **changes: Any) -> Found:
    """Return the gradients of the case with other inputs, or another configuration."""
    config = replace(case.config, activation=changes.pop("activation", case.config.activation))
    inputs = replace(case.inputs.forward, **changes)
    return dict(expert_gradients(config, inputs, case.inputs.cotangent).arrays())


def _unweighted(case: Any) -> Any:
    return np.where(case.inputs.expert_ids < 0, 0, 1).astype(np.float32)


def _without_slot(case: Any) -> Found:
    ids, weights = np.array(case.inputs.expert_ids), np.array(case.inputs.weights)
    ids[0, 1], weights[0, 1] = -1, 0.0
    return _of(case, expert_ids=ids, weights=weights)


def _unwritten(case: Any, found: Found) -> Any:
    return found["up_weight"] + (np.arange(3)[:, None, None] == 2)


WRONG: dict[str, tuple[str, Callable[[Any, Found], Any], str]] = {
    "sign": ("hidden", lambda c, g: -g["hidden"], "the sign"),
    "half": ("up_weight", lambda c, g: g["up_weight"] / 2, "half of it"),
    "zero": ("down_bias", lambda c, g: 0 * g["down_bias"], "0: nothing came back"),
    "nan": ("hidden", lambda c, g: g["hidden"] * np.nan, "NaN"),
    "weights": (
        "down_weight",
        lambda c, g: _of(c, weights=_unweighted(c))["down_weight"],
        "the routing weights are missing",
    ),
    "slot": ("hidden", lambda c, g: _without_slot(c)["hidden"], "token 0's slot 1 is missing"),
    "bias": (
        "weights",
        lambda c, g: _of(c, down_bias=None)["weights"],
        "the expert's last bias is missing",
    ),
    "slope": (
        "gate_weight",
        lambda c, g: _of(c, activation="gelu")["gate_weight"],
        "it is the slope of gelu",
    ),
    "swapped": ("up_weight", lambda c, g: g["gate_weight"], "it is the gradient of gate_weight"),
    "turned": (
        "down_weight",
        lambda c, g: g["down_weight"].swapaxes(1, 2),
        "the matrix is transposed",
    ),
    "unwritten": ("up_weight", _unwritten, "not 0: memory that nobody wrote"),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_says_what_is_missing(name: str) -> None:
    case = learned(ran(IDS, experts=3, activation="silu", drafted={"biased": True}))
    of, change, words = WRONG[name]
    learning = learning_of(case)
    found = {n: np.asarray(each, float) for n, each in learning.reference.arrays().items()}
    judged = learning.judged({**found, of: change(case, found)})[of]
    failure = expert_gradient_failure("gradients", learning, judged, judged.wrong)
    (factor,) = [line for line in failure.details if line.startswith("factor")]
    assert words in factor
    assert max(map(len, failure.details)) < 100
    assert failure.summary.startswith(f"the gradient of {of}[")


def test_what_nothing_explains_gets_no_hint() -> None:
    case = learned(ran(IDS, experts=3, activation="silu", drafted={"biased": True}))
    learning = learning_of(case)
    found = {n: np.asarray(each, float) for n, each in learning.reference.arrays().items()}
    off = found["hidden"] * 1.37 + 0.11
    judged = learning.judged({**found, "hidden": off})["hidden"]
    failure = expert_gradient_failure("gradients", learning, judged, judged.wrong)
    assert not any(line.startswith("factor") for line in failure.details)

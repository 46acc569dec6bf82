"""Compiled and checkpointed, torch's router and experts are right, however they are run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled_routers import AotEager, Checkpointed, Reentrant, Wrapped, of_transformers

from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.expert_gradients import (
    with_cotangent as with_expert_cotangent,
)
from moe_routing.conformance.generators.experts import Draft
from moe_routing.conformance.generators.gradients import with_cotangent
from moe_routing.conformance.judge.gradients import Judged
from moe_routing.conformance.trial.expert_gradients import ExpertGradientTrial
from moe_routing.conformance.trial.gradients import GradientTrial
from moe_routing.reference import ExpertsConfig, Groups, Renormalize, RouterConfig, RouterInputs
from moe_routing.reference.formats import INPUT_FORMATS

WAYS = (AotEager, Checkpointed, Reentrant)
ROUTERS: dict[str, dict[str, Any]] = {
    "softmax": {"renormalize": Renormalize()},
    "masked": {
        "score": "sigmoid",
        "weights_from": "masked_scores",
        "groups": Groups(count=4, kept=2),
        "renormalize": Renormalize(eps=1e-20),
    },
}

AGAIN = WAYS[1:]
"""Those that compile nothing: a graph takes seconds."""

PAIRS = [("softmax", AotEager), *((router, way) for router in ROUTERS for way in AGAIN)]


@pytest.mark.parametrize(("router", "way"), PAIRS)
def test_a_router_is_right_however_it_is_run(router: str, way: type[Wrapped]) -> None:
    rng = np.random.default_rng(0)
    inputs = RouterInputs(
        hidden=rng.standard_normal((7, 16), np.float32),
        gate_weight=rng.standard_normal((8, 16), np.float32) / 4,
    )
    config = RouterConfig(num_experts=8, top_k=2, **ROUTERS[router])
    trial = GradientTrial(way(), with_cotangent(Case(config=config, inputs=inputs)))
    judged = [trial.verdict.of(name) for name in ("hidden", "gate_weight")]
    assert all(each.given for each in judged)
    assert not any(each.wrong.any() for each in judged)
    assert all(each.decided for each in judged)


def judged_experts(adapter: Any, dtype: str) -> dict[str, Judged]:
    """Judge the gradients of a small call of gated experts."""
    draft = Draft(
        np.random.default_rng(0),
        ExpertsConfig(num_experts=2),
        INPUT_FORMATS[dtype],
        "normal",
        {"H": 8, "F": 8},
    )
    case = with_expert_cotangent(draft.case(np.array([[0, 1], [1, 0], [1, 0]])))
    return ExpertGradientTrial(adapter, case).judged


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_experts_are_right_however_they_are_run(way: type[Wrapped]) -> None:
    judged = judged_experts(way(), "bfloat16")
    assert all(each.given for each in judged.values())
    assert not any(each.wrong.any() for each in judged.values())


@pytest.mark.parametrize("function", ["eager", "grouped_mm"])
def test_experts_of_transformers_are_right_under_a_checkpoint(function: str) -> None:
    pytest.importorskip("transformers")
    judged = judged_experts(of_transformers(Checkpointed, function), "float32")
    assert all(each.given for each in judged.values())
    assert not any(each.wrong.any() for each in judged.values())

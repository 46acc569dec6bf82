"""What it costs to judge gradients, next to torch's forward and backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bench_clocks import Benchmark, place

from moe_routing.conformance.calls.gradients import GradientCase
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.generators.expert_gradients import (
    with_cotangent as with_expert_cotangent,
)
from moe_routing.conformance.generators.experts import Draft
from moe_routing.conformance.generators.gradients import with_cotangent
from moe_routing.conformance.trial.expert_gradients import ExpertGradientTrial
from moe_routing.conformance.trial.gradients import GradientTrial
from moe_routing.implementations import load_adapter
from moe_routing.reference import ExpertsConfig, Renormalize, RouterConfig, RouterInputs
from moe_routing.reference.formats import FLOAT32

SIZES = ((16, 64, 8, 2), (128, 1024, 128, 8))


def case(tokens: int, hidden: int, experts: int, top_k: int) -> GradientCase:
    """Return a call of a renormalised softmax router."""
    rng = np.random.default_rng(0)
    inputs = RouterInputs(
        hidden=rng.standard_normal((tokens, hidden), np.float32),
        gate_weight=rng.standard_normal((experts, hidden), np.float32) / np.float32(hidden**0.5),
    )
    config = RouterConfig(num_experts=experts, top_k=top_k, renormalize=Renormalize())
    return with_cotangent(Case(config=config, inputs=inputs))


@pytest.mark.parametrize("what", ["torch, forward and backward", "the judge"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_call(benchmark: Benchmark, sizes: Any, what: str) -> None:
    made, adapter = case(*sizes), load_adapter("torch")
    answered = GradientTrial(adapter, made)
    native = answered.native

    def called() -> bool:
        return adapter.gradients(made.config, made.inputs.router, made.inputs.cotangent) is None

    def judged() -> bool:
        trial = GradientTrial(adapter, made)
        vars(trial)["_call"] = vars(answered)["_call"]
        names = ("logits", "hidden", "gate_weight")
        return any(bool(trial.verdict.of(name).wrong.any()) for name in names)

    assert native is not None
    place(benchmark, "Gradients", "T={} H={} E={} K={}".format(*sizes), what)
    assert not benchmark(judged if what == "the judge" else called)


EXPERT_SIZES = ((16, 64, 64, 8, 2), (128, 256, 128, 16, 4))


def experts_case(tokens: int, hidden: int, width: int, experts: int, top_k: int) -> Any:
    """Return a call of the gradients of gated experts with SiLU."""
    config = ExpertsConfig(num_experts=experts)
    rng = np.random.default_rng(0)
    draft = Draft(rng, config, FLOAT32, "normal", {"H": hidden, "F": width})
    ids = np.argsort(rng.random((tokens, experts)), axis=1)[:, :top_k]
    return with_expert_cotangent(draft.case(ids))


@pytest.mark.parametrize("what", ["torch, forward and backward", "the judge"])
@pytest.mark.parametrize("sizes", EXPERT_SIZES, ids=str)
def test_a_call_of_experts(benchmark: Benchmark, sizes: Any, what: str) -> None:
    made, adapter = experts_case(*sizes), load_adapter("torch")
    answered = ExpertGradientTrial(adapter, made)
    native = answered.native

    def called() -> bool:
        arguments = made.arguments(made.inputs)
        return adapter.expert_gradients(*arguments) is None

    def judged() -> bool:
        trial = ExpertGradientTrial(adapter, made)
        vars(trial)["_call"] = vars(answered)["_call"]
        return any(bool(each.wrong.any()) for each in trial.judged.values())

    assert native is not None
    place(benchmark, "Gradients of experts", "T={} H={} F={} E={} K={}".format(*sizes), what)
    assert not benchmark(judged if what == "the judge" else called)

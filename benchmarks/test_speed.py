"""What a case costs, stage by stage, beside an eager PyTorch router of the same size.

Run ``python -m pytest benchmarks``; ``docs/performance.md`` says how to read it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from moe_routing.conformance import Case, routing_cases
from moe_routing.conformance.generators.axes import Parts
from moe_routing.conformance.generators.inputs import Draft, make_inputs
from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.conformance.trial import Trial
from moe_routing.implementations import Numerics, load_adapter
from moe_routing.reference import Groups, Renormalize, RouterConfig, route

TORCH = load_adapter("torch")
SIZES = {
    "T=17 E=16 K=4 H=33": (17, 16, 4, 33),
    "T=4096 E=64 K=6 H=64": (4096, 64, 6, 64),
    "T=8192 E=256 K=8 H=2048": (8192, 256, 8, 2048),
}
GROUPS = Groups(count=8, kept=4)

Timer = Any  # pytest-benchmark's fixture


def made(size: str, grouped: bool) -> Case:
    """Return a sigmoid router's case with a selection bias and numbers from a normal gate."""
    tokens, experts, top_k, hidden = SIZES[size]
    config = RouterConfig(
        num_experts=experts,
        top_k=top_k,
        score="sigmoid",
        groups=GROUPS if grouped else None,
        renormalize=Renormalize(),
        scale=2.5,
    )
    draft = Draft(
        recipe="normal",
        seed=0,
        dtype="float32",
        tokens=tokens,
        hidden=hidden,
        parts=Parts(selection_bias="gate"),
        bias="normal",
    )
    return Case(config=config, inputs=make_inputs(config, draft))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "grouped"])
def grouped(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module", params=list(SIZES))
def size(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def case(size: str, grouped: bool) -> Case:
    return made(size, grouped)


@pytest.fixture(scope="module")
def answer(case: Case) -> Answer:
    return Trial(TORCH, case).received.answer


@pytest.fixture
def timer(benchmark: Timer, size: str, grouped: bool) -> Timer:
    """Time in the group of this size, with what a second of it routes."""
    benchmark.group = f"{size} {'grouped' if grouped else 'plain'}"
    return benchmark


def per_second(timer: Timer, case: Case) -> None:
    """Add the token-routings a second to what ``--benchmark-json`` keeps."""
    routes = case.inputs.num_tokens * case.config.top_k
    if timer.stats is not None:
        timer.extra_info["token_routings_per_second"] = routes / timer.stats.stats.median


def test_eager_torch(timer: Timer, case: Case) -> None:
    given_ = timer(TORCH.route, case.config, case.inputs)
    assert given_.expert_ids.shape == (case.inputs.num_tokens, case.config.top_k)


def test_reference(timer: Timer, case: Case) -> None:
    assert np.isfinite(timer(route, case.config, case.inputs).weights).all()


def test_trial_call(timer: Timer, case: Case) -> None:
    """The call as the suite makes it: fresh inputs, watched, the answer converted."""
    received = timer(lambda: Trial(TORCH, case).received)
    assert received.layout == "Routing"


def test_bounds(timer: Timer, case: Case) -> None:
    """What is worked out once for a case, whoever answers it, the reference included."""
    bounds = timer(lambda: Bounds(case.config, case.inputs, Numerics()).from_reference)
    assert bounds.competing.lo.shape == (case.inputs.num_tokens, case.config.num_experts)


@pytest.mark.parametrize("logits", ["routed", "none"])
def test_judge(timer: Timer, case: Case, answer: Answer, logits: str) -> None:
    """What an answer costs, once the bounds of its case are there."""
    bounds = Bounds(case.config, case.inputs, Numerics())
    assert bounds.from_reference is not None
    assert timer(judge, bounds, answer, logits=logits).right
    per_second(timer, case)


def test_making_inputs(timer: Timer, size: str, grouped: bool) -> None:
    assert timer(made, size, grouped).inputs.num_tokens == SIZES[size][0]


def test_drawing_a_hundred_cases(benchmark: Timer) -> None:
    """Hypothesis and the generators, as the search runs them, without a backend."""
    benchmark.group = "drawing"

    def draw() -> int:
        drawn: list[Case] = []

        @seed(0)
        @settings(
            max_examples=100,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(routing_cases())
        def keep(case: Case) -> None:
            drawn.append(case)

        keep()
        return len(drawn)

    assert benchmark(draw) == 100

"""What a case costs, stage by stage, next to an eager PyTorch router of the same size."""

from __future__ import annotations

import numpy as np
import pytest
from bench_clocks import Benchmark, place
from bench_inputs import BULK, LARGE, MANY, MIDDLE, SMALL, Size
from hypothesis import HealthCheck, Phase, given, seed, settings

from moe_routing.conformance import Case, routing_cases
from moe_routing.conformance.generators.axes import Parts
from moe_routing.conformance.generators.inputs import Draft, make_inputs
from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.conformance.trial.trial import Trial
from moe_routing.implementations import Numerics, load_adapter
from moe_routing.reference import Groups, Renormalize, RouterConfig, route

TORCH = load_adapter("torch")
SIZES = (SMALL, MIDDLE, BULK, LARGE, MANY)
GROUPS = Groups(count=8, kept=4)


def made(size: Size, grouped: bool) -> Case:
    """Return a sigmoid router's case with a selection bias and numbers from a normal gate."""
    config = RouterConfig(
        num_experts=size.experts,
        top_k=size.top_k,
        score="sigmoid",
        groups=GROUPS if grouped else None,
        renormalize=Renormalize(),
        scale=2.5,
    )
    draft = Draft(
        recipe="normal",
        seed=0,
        dtype="float32",
        tokens=size.tokens,
        hidden=size.hidden,
        parts=Parts(selection_bias="gate"),
        bias="normal",
    )
    return Case(config=config, inputs=make_inputs(config, draft))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "grouped"])
def grouped(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module", params=SIZES, ids=str)
def size(request: pytest.FixtureRequest) -> Size:
    return request.param


@pytest.fixture(scope="module")
def case(size: Size, grouped: bool) -> Case:
    return made(size, grouped)


@pytest.fixture(scope="module")
def answer(case: Case) -> Answer:
    return Trial(TORCH, case).received.answer


@pytest.fixture
def timer(
    benchmark: Benchmark, request: pytest.FixtureRequest, size: Size, grouped: bool
) -> Benchmark:
    """Time in the group of this size, in the row of this test."""
    kind = "grouped" if grouped else "plain"
    benchmark.group = f"{size} {kind}"
    name = request.node.originalname.removeprefix("test_")
    own = [value for value in request.node.callspec.params.values() if isinstance(value, str)]
    place(benchmark, f"A case, {kind}", f"`{'-'.join([name, *own])}`", str(size))
    return benchmark


def test_eager_torch(timer: Benchmark, case: Case) -> None:
    given_ = timer(TORCH.prepare(case.config, case.inputs))
    assert given_.expert_ids.shape == (case.inputs.num_tokens, case.config.top_k)


def test_making_inputs(timer: Benchmark, size: Size, grouped: bool) -> None:
    assert timer(made, size, grouped).inputs.num_tokens == size.tokens


def test_trial_call(timer: Benchmark, case: Case) -> None:
    """The call as the suite makes it: fresh inputs, watched, the answer converted."""
    received = timer(lambda: Trial(TORCH, case).received)
    assert received.layout == "Routing"


def test_reference(timer: Benchmark, case: Case) -> None:
    assert np.isfinite(timer(route, case.config, case.inputs).weights).all()


def test_bounds(timer: Benchmark, case: Case) -> None:
    """What is computed once per case, for all answers to it, after its reference."""

    def bounded() -> Bounds:
        bounds = Bounds(case.config, case.inputs, Numerics())
        vars(bounds)["reference"] = reference
        return bounds.from_reference and bounds

    reference = Bounds(case.config, case.inputs, Numerics()).reference
    assert timer(bounded).judged.all()


@pytest.mark.parametrize("logits", ["routed", "none"])
def test_judge(timer: Benchmark, case: Case, answer: Answer, logits: str) -> None:
    """What an answer costs, once the bounds of its case are there."""
    bounds = Bounds(case.config, case.inputs, Numerics())
    assert bounds.from_reference is not None
    assert timer(judge, bounds, answer, logits=logits).right


@pytest.mark.parametrize("logits", ["routed", "none"])
def test_verdict(timer: Benchmark, case: Case, answer: Answer, logits: str) -> None:
    """Everything that one answer to one case costs: reference, bounds and judge."""

    def verdict() -> bool:
        return judge(Bounds(case.config, case.inputs, Numerics()), answer, logits=logits).right

    timer.extra_info["token_routings"] = case.inputs.num_tokens * case.config.top_k
    assert timer(verdict)


def test_drawing_a_hundred_cases(benchmark: Benchmark) -> None:
    """Hypothesis and the generators, as the search runs them, without a backend."""
    benchmark.group = "drawing"
    place(benchmark, "Drawing", "a hundred cases, without a backend", "of the whole specification")

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

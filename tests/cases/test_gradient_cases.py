"""Cases of gradients: their form in files, smaller ones, and the known divergences they share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moe_routing.conformance import load_known
from moe_routing.conformance.calls.gradients import GradientCase, GradientInputs
from moe_routing.conformance.calls.routing import Case
from moe_routing.conformance.cases.files import load_case, save_case
from moe_routing.conformance.cases.kinds import facts_of, kind_of
from moe_routing.conformance.generators.choices import Focus, seeded
from moe_routing.conformance.generators.gradients import (
    COTANGENTS,
    choose_gradient_case,
    with_cotangent,
)
from moe_routing.implementations import Capabilities
from moe_routing.reference import RouterConfig, RouterInputs

WHOLE = Capabilities()


def drawn(seed: int) -> GradientCase:
    return choose_gradient_case(seeded(seed), WHOLE, Focus())


def test_a_file_gives_the_case_back_bit_for_bit(tmp_path: Path) -> None:
    for seed in range(5):
        case = drawn(seed)
        save_case(case, tmp_path / "case.json", clause="gradients.hidden")
        again, clause = load_case(tmp_path / "case.json")
        assert (type(again), clause) == (GradientCase, "gradients.hidden")
        assert again.config == case.config
        for name, array in case.inputs.arrays().items():
            assert array.tobytes() == again.inputs.arrays()[name].tobytes(), name


@pytest.mark.parametrize("seed", range(6))
def test_smaller_cases_are_cases_of_gradients_that_fit(seed: int) -> None:
    case = drawn(seed)
    if case.inputs.cotangent.size > 20_000:
        return
    for reduction in kind_of(case).reductions:
        for smaller, _ in zip(reduction(case), range(5), strict=False):
            assert isinstance(smaller, GradientCase)
            shape = smaller.inputs.num_tokens, smaller.config.num_experts
            assert smaller.inputs.cotangent.shape == shape


@pytest.mark.parametrize("name", COTANGENTS)
def test_a_cotangent_is_exact_in_every_dtype(name: str) -> None:
    values = COTANGENTS[name](np.random.default_rng(0), (9, 7)).astype(np.float32)
    assert np.ptp(values, axis=1).min() > 0, "constant along a row"
    for dtype in WHOLE.dtypes:
        inputs = RouterInputs.from_logits(np.zeros((9, 7)), dtype=dtype)
        GradientInputs(**vars(inputs), cotangent=values)


def test_the_router_of_its_inputs_has_no_cotangent() -> None:
    router = drawn(0).inputs.router
    assert type(router) is RouterInputs
    assert "cotangent" not in router.arrays()


def test_a_known_divergence_of_routing_covers_the_call_that_contains_it(tmp_path: Path) -> None:
    config = RouterConfig(num_experts=2, top_k=1, scale=2.0)
    case = Case(config=config, inputs=RouterInputs.from_logits(np.eye(2)))
    save_case(case, tmp_path / "case.json")
    (tmp_path / "known.toml").write_text(
        '[[divergence]]\nid = "a"\nadapters = ["x"]\nclause = "weights.scale"\nreason = "r"\n'
        'link = "https://a.b"\nwitness = "case.json"\naffects = ["*"]\nwhen = { scale = 2.0 }\n'
    )
    (known,) = load_known(tmp_path / "known.toml")
    inside = with_cotangent(case)
    outside = replace(inside, config=replace(config, scale=1.0))
    assert known.covers(facts_of(inside, WHOLE), inside)
    assert not known.covers(facts_of(outside, WHOLE), outside)

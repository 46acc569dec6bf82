"""The balls of a whole layer: right layers lie within, whether they say how they routed or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from near_layers import composed

from moe_routing.conformance import Case
from moe_routing.conformance.calls.layer import LayerCase
from moe_routing.conformance.cases.files import case_from_json, case_to_json
from moe_routing.conformance.cases.kinds import LAYER, trial_of
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.generators.choices import seeded
from moe_routing.conformance.generators.layer import choose_layer_case
from moe_routing.conformance.generators.layer_smaller import LAYER_REDUCTIONS
from moe_routing.conformance.known.divergence import Divergence
from moe_routing.conformance.trial.layer import facts_of
from moe_routing.conformance.zoo import MUTANTS
from moe_routing.implementations import Capabilities, Numerics, load_adapter
from moe_routing.reference import Groups, LayerResult, RouterConfig, RouterInputs, layer

WHOLE = Capabilities()


def drawn(seed: int) -> LayerCase:
    return choose_layer_case(seeded(seed), WHOLE)


@pytest.mark.parametrize("name", ["reference", "torch"])
def test_right_layers_are_within_with_a_routing_and_without(name: str) -> None:
    if name == "torch":
        pytest.importorskip("torch")
    adapter: Any = load_adapter(name)
    for seed in range(25):
        case = drawn(seed)
        trial: Any = trial_of(adapter, case, "layer")
        assert not trial.wrong.any(), (seed, case.config, case.size)
        assert trial.facts.routed.output.contains(trial.received.output).all(), seed


def test_the_reference_is_the_centre() -> None:
    case = composed(gated=True, scale=2.5)
    facts = facts_of(case, Numerics())
    answer = layer(case.config, case.inputs)
    due = facts.at(answer.routing.expert_ids, answer.routing.weights)
    np.testing.assert_allclose(due.output.mid, answer.output, rtol=1e-7)
    assert (due.output.rad < 1e-4).all(), "float32 errs by little"


def test_a_tie_is_undecided_without_a_routing_alone() -> None:
    case = composed(arrays={"gate_weight": np.zeros((4, 4), np.float32)})
    facts = facts_of(case, Numerics())
    assert not facts.routed.decided.any()
    answer = layer(case.config, case.inputs)
    assert facts.at(answer.routing.expert_ids, answer.routing.weights).decided.all()


def test_an_overflow_of_the_shared_expert_is_undecided() -> None:
    case = composed(dtype="float16", arrays={"hidden": np.full((3, 4), 16384, np.float32)})
    output = facts_of(case, Numerics()).routed.output
    assert output.contains(np.full(output.mid.shape, np.nan)).any()


def test_the_case_survives_its_file() -> None:
    case = composed(gated=True, score="sigmoid", scale=2.5)
    back, clause = case_from_json(case_to_json(case, clause="layer.composes"))
    assert clause == "layer.composes"
    assert back.config == case.config
    for name, array in case.inputs.arrays().items():
        np.testing.assert_array_equal(back.inputs.arrays()[name], array)


def test_every_reduction_makes_claimed_cases() -> None:
    case = drawn(11)
    proposed = [each for one in LAYER_REDUCTIONS for each in one(case)]
    assert len(proposed) > 5
    assert all(LAYER.claimed(each, WHOLE) for each in proposed)


def test_an_id_out_of_range_is_a_failure_of_the_routing() -> None:
    class Wild:
        name = "wild"

        def capabilities(self) -> Capabilities:
            return WHOLE

        def layer(self, config: Any, inputs: Any) -> LayerResult:
            right = layer(config, inputs)
            ids = np.where(right.routing.expert_ids == 0, 9, right.routing.expert_ids)
            return replace(right, routing=replace(right.routing, expert_ids=ids))

    trial = trial_of(Wild(), composed(), "layer")
    failure = CLAUSES["layer.routing"].check(trial)
    assert failure is not None
    assert "every id should be in [0, 4)" in failure.summary


STORIES = {
    "layer-adds-shared-twice": "looks     as if the shared expert were added twice",
    "layer-drops-shared": "looks     as if the shared expert were lost",
    "layer-scales-shared": "looks     as if the shared expert were scaled like the routed ones",
    "layer-scales-twice": "looks     as if the routed scaling factor were applied twice",
    "layer-skips-shared-gate": "looks     as if the shared expert had no gate",
}


@pytest.mark.parametrize("name", STORIES)
def test_the_story_says_what_it_looks_like(name: str) -> None:
    case = composed(gated=name == "layer-skips-shared-gate", scale=2.5)
    failure = CLAUSES["layer.shared-once"].check(trial_of(MUTANTS[name].adapter(), case, "layer"))
    assert failure is not None
    assert STORIES[name] in failure.details
    assert failure.details[1].startswith("experts   F=4: silu, gated, weight on the output")


def test_a_known_divergence_of_the_router_covers_the_layer_that_it_is_in() -> None:
    witness = Case(
        config=RouterConfig(num_experts=1, top_k=1, groups=Groups(count=1, kept=1)),
        inputs=RouterInputs.from_logits(np.zeros((1, 1), np.float32)),
    )
    lone = Divergence(
        id="lone-expert",
        adapters=("transformers:deepseek_v3",),
        clause="robustness.answers",
        affects=("*",),
        reason="raises",
        link="https://example.org",
        witnesses=(witness,),
        when={"num_experts": (1,), "groups": ("present",)},
    )
    alone = composed(score="sigmoid")
    facts = facts_of(alone, Numerics())
    assert not lone.outlines(alone)
    assert not lone.covers(facts, alone)
    router = replace(alone.config.router, num_experts=1, top_k=1, groups=Groups(count=1, kept=1))
    one = {name: array[:1] for name, array in alone.inputs.arrays().items() if len(array) == 4}
    kept = {name: each for name, each in one.items() if name.startswith(("experts", "gate"))}
    config = replace(
        alone.config, router=router, experts=replace(alone.config.experts, num_experts=1)
    )
    case = replace(alone, config=config, inputs=replace(alone.inputs, **kept))
    assert lone.outlines(case)
    assert lone.covers(facts_of(case, Numerics()), case)

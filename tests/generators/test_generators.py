"""Generators: every case is claimed, every condition is drawn, and what is found shrinks."""

from __future__ import annotations

import ast
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_routing.conformance import (
    Case,
    generators,
    router_configs,
    router_inputs,
    routing_cases,
    shared_expert_cases,
)
from moe_routing.conformance.calls.shared_experts import SharedCase
from moe_routing.conformance.generators.published import published_widths
from moe_routing.conformance.generators.recipes import RECIPES
from moe_routing.conformance.generators.strategies import steady_examples
from moe_routing.implementations import Capabilities, Claim, GroupRule, Limits, load_adapter
from moe_routing.reference import RouterConfig, check_inputs, stages

WHOLE = Capabilities()
GENERATORS = sorted(Path(generators.__file__).parent.glob("*.py"))


SHIPPED = ("scattermoe", "sonicmoe", "torch")


NARROW: dict[str, Any] = {
    "everything": WHOLE,
    "softmax": Capabilities(claims=(Claim(score=("softmax",)),)),
    "logits, without norm": Capabilities(takes="logits", claims=(Claim(input_norm=(False,)),)),
    "groups": Capabilities(claims=(Claim(groups=(GroupRule(top=(2,), fill=(0.0,)),)),)),
    "few experts": Capabilities(limits=Limits(max_experts=12, max_top_k=3)),
    "experts in eights": Capabilities(limits=Limits(experts_multiple_of=8, max_tokens=9)),
    "experts in hundreds": Capabilities(limits=Limits(experts_multiple_of=100)),
    "bfloat16": Capabilities(dtypes=("bfloat16",)),
    "float16 logits": Capabilities(
        takes="logits", dtypes=("float16",), claims=(Claim(input_norm=(False,)),)
    ),
    "identity": Capabilities(claims=(Claim(score=("identity",)),)),
    "every op": Capabilities(
        claims=(Claim(logit_softcap=(True,), logit_multiplier=(True,), input_norm=(True,)),)
    ),
    "two claims": Capabilities(
        claims=(
            Claim(score=("softmax",), selection_bias=("none",), scale=(1.0,)),
            Claim(score=("sigmoid",), groups=(GroupRule(top=(1,)),), renormalize=(None,)),
        )
    ),
    **{name: load_adapter(name).capabilities() for name in SHIPPED},
    "top-1": Capabilities(claims=(Claim(top_k=(1,)),)),
    "top-7": Capabilities(claims=(Claim(top_k=(7,)),), limits=Limits(experts_multiple_of=4)),
    "top-2 or more": Capabilities(claims=(Claim(top_k=range(2, sys.maxsize)),)),
    # Parts that must be there leave no room for an expert table, and the other way round.
    "logits": Capabilities(takes="logits"),
    "bias on the gate": Capabilities(claims=(Claim(score=("sigmoid",), selection_bias=("gate",)),)),
    "linear bias": Capabilities(claims=(Claim(gate_bias=(True,)),)),
    "hash routing": Capabilities(claims=(Claim(expert_table=(True,)),)),
}
CLAIMED = [pytest.param(capabilities, id=name) for name, capabilities in NARROW.items()]


def drawn(
    strategy: st.SearchStrategy[Any],
    check: Callable[[Any], object],
    *,
    examples: int,
    seed: int = 0,
) -> None:
    """Check drawn values; Hypothesis objects where many draws are thrown away."""

    for value in steady_examples(strategy, f"{seed}", examples):
        check(value)


@pytest.mark.parametrize("capabilities", CLAIMED)
def test_a_drawn_case_is_claimed_by_what_it_is_drawn_from(capabilities: Capabilities) -> None:
    def check(case: Case) -> None:
        claimed = capabilities.admits(case.config, case.inputs)
        assert claimed, f"{case.size} {case.config} of {sorted(case.inputs.arrays())} is not"
        check_inputs(case.config, case.inputs)
        RouterConfig(**vars(case.config))
        assert case.recipe in RECIPES

    drawn(routing_cases(capabilities), check, examples=60)


@pytest.mark.parametrize("path", GENERATORS, ids=lambda path: path.stem)
def test_nothing_is_drawn_by_rejection(path: Path) -> None:
    calls = [
        node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    names = {getattr(func, "attr", getattr(func, "id", None)) for func in calls}
    assert not names & {"filter", "assume", "reject"}, f"{path.name} should draw from the claims"


@pytest.mark.parametrize("name", ["everything", "groups", "bfloat16", "few experts"])
def test_configurations_and_inputs_may_be_drawn_apart(name: str) -> None:
    capabilities = NARROW[name]

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.data())
    def search(data: st.DataObject) -> None:
        config = data.draw(router_configs(capabilities))
        inputs = data.draw(router_inputs(config, capabilities, recipes=("table", "normal")))
        assert capabilities.admits(config, inputs), config
        check_inputs(config, inputs)

    search()


def test_inputs_for_an_unclaimed_configuration_are_refused() -> None:
    config = RouterConfig(num_experts=4, top_k=2, score="sigmoid")
    with pytest.raises(ValueError, match="the capabilities do not claim RouterConfig"):
        router_inputs(config, NARROW["softmax"])


@pytest.fixture(scope="module")
def many() -> list[Case]:
    cases: list[Case] = []
    for seed in range(2):
        drawn(routing_cases(), cases.append, examples=350, seed=seed)
    return cases


REACHED: dict[str, Callable[[Case], bool]] = {
    **{f"T={n}": lambda c, n=n: c.inputs.num_tokens == n for n in (0, 1, 2, 3, 9, 17)},
    "T>256": lambda c: c.inputs.num_tokens > 256,
    "K=1": lambda c: c.config.top_k == 1 < c.config.num_experts,
    "K=E": lambda c: c.config.top_k == c.config.num_experts > 1,
    "K=E-1": lambda c: c.config.top_k == c.config.num_experts - 1 > 1,
    "K>8": lambda c: c.config.top_k > 8,
    "E=1": lambda c: c.config.num_experts == 1,
    "E>255": lambda c: c.config.num_experts > 255,
    "E is no power of two": lambda c: c.config.num_experts & (c.config.num_experts - 1) > 0,
    "published sizes and H": lambda c: c.inputs.hidden_size in published_widths(c.config),
    "groups": lambda c: c.config.groups is not None and c.config.groups.count > 1,
    "all groups kept": lambda c: (
        c.config.groups is not None and c.config.groups.kept == c.config.groups.count > 1
    ),
    "strided": lambda c: not c.inputs.hidden.flags.c_contiguous,
    "bias": lambda c: c.inputs.selection_bias is not None and c.inputs.selection_bias.any(),
    "masked bias": lambda c: (
        c.inputs.selection_bias is not None and bool(np.isneginf(c.inputs.selection_bias).any())
    ),
    "lost experts": lambda c: (
        c.inputs.gate_bias is not None and bool(np.isneginf(c.inputs.gate_bias).any())
    ),
    "transposed gate": lambda c: c.inputs.gate_weight.strides[0] < c.inputs.gate_weight.strides[1],
    "gate bias": lambda c: c.inputs.gate_bias is not None,
    "delta": lambda c: c.inputs.gate_delta is not None,
    "expert scales": lambda c: c.inputs.per_expert_scale is not None,
    "table": lambda c: c.inputs.expert_table is not None,
    "norm": lambda c: c.config.input_norm is not None,
    "softcap": lambda c: c.config.logit_softcap is not None,
    "scale 0": lambda c: c.config.scale == 0.0,
    "tie": lambda c: _tied(c),
}


def _tied(case: Case) -> bool:
    k, config = case.config.top_k, case.config
    if k == config.num_experts or case.inputs.expert_table is not None:
        return False
    ranked = -np.sort(-stages(config, case.inputs).competing, axis=1)
    return bool((ranked[:, k - 1] == ranked[:, k]).any())


class TestReach:
    @pytest.mark.parametrize("what", REACHED)
    def test_a_condition_is_reached_among_hundreds_of_cases(
        self, what: str, many: list[Case]
    ) -> None:
        found = sum(REACHED[what](case) for case in many)
        assert found >= 1, f"{what}: {found} of {len(many)} cases"

    def test_every_recipe_dtype_and_axis_value_is_drawn(self, many: list[Case]) -> None:
        assert {case.recipe for case in many} == set(RECIPES)
        assert {case.inputs.dtype for case in many} == {"float32", "bfloat16", "float16"}
        whole = Claim()
        for axis in ("score", "weights_from", "logits_dtype", "scores_dtype", "weights_dtype"):
            drawn_ = {getattr(case.config, axis) for case in many}
            assert drawn_ == set(getattr(whole, axis)), axis

    def test_cases_stay_small_enough_to_be_quick(self, many: list[Case]) -> None:
        most = max(case.inputs.num_tokens * case.config.num_experts for case in many)
        assert most <= 2**15, f"{most} logits in one case"

    def test_different_seeds_draw_different_cases(self, many: list[Case]) -> None:
        sizes = Counter((case.size, case.recipe, repr(case.config)) for case in many)
        assert len(sizes) > len(many) // 3, "most cases repeat others"


SHRINKS: dict[str, Callable[[Case], bool]] = {
    "anything": lambda c: True,
    "two experts": lambda c: c.config.num_experts >= 2,
    "three of them": lambda c: c.config.top_k >= 3 and c.inputs.num_tokens > 1,
    "groups": lambda c: c.config.groups is not None and c.config.groups.count > 1,
    "a bias": lambda c: c.inputs.selection_bias is not None and c.inputs.num_tokens > 0,
    "bfloat16": lambda c: c.inputs.dtype == "bfloat16" and c.inputs.num_tokens > 0,
    "a tie": lambda c: _tied(c),
}


@pytest.mark.parametrize("what", SHRINKS)
def test_a_found_case_shrinks_to_few_tokens_and_few_experts(what: str) -> None:
    small = hypothesis.find(
        routing_cases(),
        SHRINKS[what],
        settings=settings(max_examples=600, database=None, deadline=None),
        random=random.Random(5),
    )
    assert small.inputs.num_tokens <= 3, small.size
    assert small.config.num_experts <= 16, f"{small.size}: the reducer does the rest"


def test_shared_expert_cases_are_of_the_requested_kinds() -> None:
    seen: Counter[tuple[str, bool, str]] = Counter()

    def check(case: SharedCase) -> None:
        seen[case.config.kind, case.config.gated, case.inputs.dtype] += 1

    strategy = shared_expert_cases(("bfloat16",), kinds=("mlp", "none"), gated=(False, True))
    drawn(strategy, check, examples=60)
    assert set(seen) <= {
        ("mlp", False, "bfloat16"),
        ("mlp", True, "bfloat16"),
        ("none", False, "bfloat16"),
    }
    assert len(seen) == 3


def test_recipes_make_numbers_that_their_dtype_holds() -> None:
    for name in RECIPES:
        for dtype in WHOLE.dtypes:
            narrow = replace(WHOLE, dtypes=(dtype,))

            def check(case: Case, dtype: str = dtype, name: str = name) -> None:
                assert (case.inputs.dtype, case.recipe) == (dtype, name)
                assert np.isfinite(case.inputs.hidden).all(), f"{name} overflows {dtype}"

            drawn(routing_cases(narrow, recipes=(name,)), check, examples=4)


def test_given_logits_are_drawn_in_every_layout() -> None:
    seen: Counter[str] = Counter()

    def check(case: Case) -> None:
        logits = case.inputs.logits
        assert logits is not None
        if logits.size and min(logits.shape) > 1:
            rows, columns = logits.strides
            item = logits.itemsize
            kind = "spaced" if columns > item else "rows"
            seen["transposed" if rows < columns else kind] += 1

    drawn(routing_cases(Capabilities(takes="logits")), check, examples=150)
    assert {*seen} == {"rows", "spaced", "transposed"}

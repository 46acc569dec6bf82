"""The reducer: a large case that fails gets small, deterministically, within its budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Case
from moe_routing.conformance.cases.files import case_to_json
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.generators.reducer import BUDGET, reduce_case
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.reference import (
    Groups,
    Renormalize,
    RmsNorm,
    RouterConfig,
    RouterInputs,
    check_inputs,
    stages,
)

# A large case, and bugs planted in it: what each needs is all that should be left.


def reduced(case: Any, still_fails: Callable[[Any], bool]) -> Any:
    """Make a case of any kind smaller."""
    return reduce_case(case, kind_of(case).reductions, still_fails)


def large(*, experts: int = 64, tokens: int = 63, top_k: int = 6, groups: int = 0) -> Case:
    rng = np.random.default_rng(3)
    hidden = rng.integers(-8, 9, (tokens, 33))
    hidden[-1] = hidden[0]
    config = RouterConfig(
        num_experts=experts,
        top_k=top_k,
        score="sigmoid",
        groups=Groups(count=groups, kept=groups // 2) if groups else None,
        renormalize=Renormalize(eps=1e-20),
        scale=2.5,
    )
    inputs = RouterInputs(
        hidden=hidden,
        gate_weight=rng.integers(-8, 9, (experts, 33)),
        gate_bias=rng.integers(-8, 9, experts),
        selection_bias=rng.integers(-12, -3, experts) / 4.0,
        dtype="bfloat16",
    )
    return Case(config=config, inputs=inputs, recipe="large")


def _ignores_bias(case: Case) -> bool:
    plain = replace(case, inputs=replace(case.inputs, selection_bias=None))
    ids = [np.sort(stages(c.config, c.inputs).expert_ids) for c in (case, plain)]
    return bool((ids[0] != ids[1]).any())


def _fills_with_zero(case: Case) -> bool:
    groups = case.config.groups
    if groups is None or groups.fill == 0.0:
        return False
    filled = replace(case, config=replace(case.config, groups=replace(groups, fill=0.0)))
    ids = [np.sort(stages(c.config, c.inputs).expert_ids) for c in (case, filled)]
    return bool((ids[0] != ids[1]).any())


def _last_expert_wins(case: Case) -> bool:
    ids = stages(case.config, case.inputs).expert_ids
    return case.config.num_experts > 1 and bool((ids == case.config.num_experts - 1).any())


def _two_tokens_choose_alike(case: Case) -> bool:
    ids = np.sort(stages(case.config, case.inputs).expert_ids)
    return len(np.unique(ids, axis=0)) < len(ids)


PLANTED = [
    (_ignores_bias, 0, 1, 2),
    (_fills_with_zero, 8, 1, 4),
    (_last_expert_wins, 0, 1, 2),
    (_two_tokens_choose_alike, 0, 2, 8),
    (lambda case: case.config.top_k >= 3 and case.inputs.num_tokens >= 4, 4, 4, 8),
]


class TestReducer:
    @pytest.mark.parametrize(("fails", "groups", "tokens", "experts"), PLANTED)
    def test_a_large_case_gets_small(
        self, fails: Callable[[Case], bool], groups: int, tokens: int, experts: int
    ) -> None:
        calls: list[Case] = []

        def counted(case: Case) -> bool:
            check_inputs(case.config, case.inputs)
            calls.append(case)
            return fails(case)

        case = large(groups=groups)
        assert fails(case), "the bug should be planted"
        small = reduced(case, counted)
        assert fails(small), "a smaller case should fail as the large one does"
        assert small.inputs.num_tokens <= tokens, small.size
        assert small.config.num_experts <= experts, small.size
        assert len(calls) <= BUDGET, "the reducer is bounded by calls"
        assert case_to_json(reduced(case, fails)) == case_to_json(small), "not deterministic"

    @pytest.mark.parametrize("answer", [True, False])
    def test_ends_whatever_it_is_told(self, answer: bool) -> None:
        calls: list[Case] = []
        small = reduced(large(groups=8), lambda case: calls.append(case) or answer)
        assert len(calls) <= BUDGET
        assert (small.size == "T=1 H=1 E=1 K=1") == answer, small.size
        RouterConfig(**vars(small.config))

    def test_keeps_an_identity_gate(self) -> None:
        rng = np.random.default_rng(0)
        inputs = RouterInputs.from_logits(rng.integers(-9, 9, (20, 32)) / 4.0)
        case = Case(config=RouterConfig(num_experts=32, top_k=4), inputs=inputs)
        small = reduced(case, _last_expert_wins)
        assert small.config.num_experts <= 3, small.size
        np.testing.assert_array_equal(small.inputs.logits, small.inputs.hidden)

    def test_keeps_given_logits_the_logits_of_the_hidden_states(self) -> None:
        inputs = RouterInputs.from_logits([[1.0, -np.inf, 0.5], [0.0, -np.inf, 2.0]])
        case = Case(config=RouterConfig(num_experts=3, top_k=2), inputs=inputs)
        small = reduced(case, lambda c: bool(np.isneginf(c.inputs.logits).any()))
        np.testing.assert_array_equal(
            stages(small.config, small.inputs).logits, small.inputs.logits
        )

    def test_offers_only_inputs_that_fit_the_configuration(self) -> None:
        case = large(tokens=2, experts=2, top_k=1)
        config = replace(case.config, input_norm=RmsNorm())
        inputs = replace(case.inputs, hidden_scale=np.ones(33))

        def fails(smaller: Case) -> bool:
            check_inputs(smaller.config, smaller.inputs)
            return smaller.inputs.hidden_scale is not None

        reduced(replace(case, config=config, inputs=inputs), fails)


def test_a_shared_expert_call_shrinks_to_what_fails() -> None:
    case = make_shared_case(
        kind="singular", gated=True, dtype="float32", tokens=17, hidden=33, width=16, seed=3
    )
    assert reduced(case, lambda smaller: True).size == "T=1 H=1 I=1"
    marked = case.inputs.hidden[5, 7]
    small = reduced(case, lambda smaller: bool((smaller.inputs.hidden == marked).any()))
    assert small.size.startswith("T=1 "), "one token has the value that fails"
    assert small.config == case.config

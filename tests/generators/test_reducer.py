"""The reducer: a large case that fails gets small, deterministically, within its budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from planted import (
    fills_with_zero,
    ignores_bias,
    last_expert_wins,
    reduced,
    two_tokens_choose_alike,
)

from moe_routing.conformance import Case
from moe_routing.conformance.cases.files import case_to_json
from moe_routing.conformance.cases.kinds import all_defined, facts_of, kind_of
from moe_routing.conformance.generators.construct import take_tokens, with_config
from moe_routing.conformance.generators.nonsense import bad_configs
from moe_routing.conformance.generators.reducer import BUDGET, reduce_case
from moe_routing.conformance.generators.shared import make_shared_case
from moe_routing.implementations import Capabilities
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


PLANTED = [
    (ignores_bias, 0, 1, 2),
    (fills_with_zero, 8, 1, 4),
    (last_expert_wins, 0, 1, 2),
    (two_tokens_choose_alike, 0, 2, 8),
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
    def test_ends_whatever_the_outcomes_are(self, answer: bool) -> None:
        calls: list[Case] = []
        small = reduced(large(groups=8), lambda case: calls.append(case) or answer)
        assert len(calls) <= BUDGET
        assert (small.size == "T=1 H=1 E=1 K=1") == answer, small.size
        RouterConfig(**vars(small.config))

    @pytest.mark.parametrize("groups", [0, 4])
    def test_experts_take_their_slots_along(self, groups: int) -> None:
        case = large(experts=8, tokens=1, top_k=4 if groups else 8, groups=groups)

        def has_no_room(each: Case) -> bool:
            kept = each.config.groups.kept if each.config.groups else 1
            return each.config.top_k == kept * each.config.experts_per_group

        small = reduced(case, has_no_room)
        assert small.config.num_experts == small.config.top_k == 1, small.size

    def test_keeps_an_identity_gate(self) -> None:
        rng = np.random.default_rng(0)
        inputs = RouterInputs.from_logits(rng.integers(-9, 9, (20, 32)) / 4.0)
        case = Case(config=RouterConfig(num_experts=32, top_k=4), inputs=inputs)
        small = reduced(case, last_expert_wins)
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


class TestPreferred:
    """Cases that are worth more: those with a defined answer, in a run."""

    @staticmethod
    def small(
        case: Case, fails: Callable[[Case], bool], preferred: Callable[[Case], bool]
    ) -> tuple[Case, int]:
        calls: list[Case] = []
        small = reduce_case(
            case,
            kind_of(case).reductions,
            lambda smaller: calls.append(smaller) or fails(smaller),
            preferred=preferred,
        )
        assert len(calls) <= BUDGET
        return small, len(calls)

    @pytest.mark.parametrize("groups", [0, 8])
    def test_a_preferred_case_is_replaced_by_such_alone(self, groups: int) -> None:
        case = large(groups=groups)
        small, _ = self.small(case, lambda smaller: True, lambda each: each.config.num_experts > 4)
        assert 4 < small.config.num_experts <= 8, small.size
        assert small.inputs.num_tokens == 1

    @pytest.mark.parametrize("good", [0, 40, 62])
    def test_among_what_fails_a_preferred_one_is_found_though_it_is_proposed_late(
        self, good: int
    ) -> None:
        case = large()
        marked = case.inputs.hidden[good] + 1.0
        hidden = np.array(case.inputs.hidden)
        hidden[good] = marked
        case = replace(case, inputs=replace(case.inputs, hidden=hidden))

        def one_token(each: Case) -> Iterator[Case]:
            if each.inputs.num_tokens > 1:
                yield from (take_tokens(each, [t]) for t in range(each.inputs.num_tokens))

        def preferred(each: Case) -> bool:
            return each.inputs.num_tokens == 1 and bool((each.inputs.hidden == marked).all())

        small = reduce_case(case, (one_token,), lambda each: True, preferred=preferred)
        np.testing.assert_array_equal(small.inputs.hidden, marked[None])

    def test_where_none_fails_the_others_are_made_as_small_as_ever(self) -> None:
        plain, calls = self.small(large(), ignores_bias, lambda each: True)
        small, more = self.small(large(), ignores_bias, lambda each: False)
        assert case_to_json(small) == case_to_json(plain)
        assert calls == more, "what is not preferred costs no call before its turn"


def test_a_shared_expert_call_shrinks_to_what_fails() -> None:
    case = make_shared_case(
        kind="singular", gated=True, dtype="float32", tokens=17, hidden=33, width=16, seed=3
    )
    assert reduced(case, lambda smaller: True).size == "T=1 H=1 I=1"
    marked = case.inputs.hidden[5, 7]
    small = reduced(case, lambda smaller: bool((smaller.inputs.hidden == marked).any()))
    assert small.size.startswith("T=1 "), "one token has the value that fails"
    assert small.config == case.config


def _nonsense() -> list[Case]:
    """Calls that a backend has to reject, and in which it may die."""
    grouped = RouterConfig(num_experts=8, top_k=2, groups=Groups(count=4, kept=2))
    inputs = RouterInputs(hidden=np.ones((3, 8)), gate_weight=np.eye(8))
    case = Case(config=grouped, inputs=inputs)
    ragged = [with_config(case, groups=Groups(count=count, kept=1)) for count in (3, 5)]
    return [*bad_configs(case).values(), *ragged]


@pytest.mark.parametrize("still_fails", [lambda case: True, lambda case: False])
@pytest.mark.parametrize("case", _nonsense(), ids=lambda case: str(case.config.groups))
def test_a_call_that_a_backend_has_to_reject_can_be_made_smaller(
    case: Case, still_fails: Callable[[Case], bool]
) -> None:
    kind = kind_of(case)
    reduce_case(
        case,
        kind.reductions,
        still_fails,
        preferred=lambda smaller: all_defined(smaller, facts_of(smaller, Capabilities())),
        budget=60,
    )

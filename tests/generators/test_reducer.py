"""The reducer: a large case that fails gets small, deterministically, within its budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Case
from moe_routing.conformance.cases.files import case_to_json
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.generators.construct import take_tokens
from moe_routing.conformance.generators.plainer import nearer
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
        plain, calls = self.small(large(), _ignores_bias, lambda each: True)
        small, more = self.small(large(), _ignores_bias, lambda each: False)
        assert case_to_json(small) == case_to_json(plain)
        assert calls == more, "what is not preferred costs no call before its turn"


WILD = np.array([0.25, -np.inf, 1e10, -4096.0, np.inf, 0.5, np.nan, 3e38], np.float32)


class TestNumbers:
    """Numbers that hide what is going on: infinities, NaN, ten thousand millions."""

    @pytest.mark.parametrize("given", [False, True], ids=["hidden states", "given logits"])
    def test_a_bias_that_fails_with_small_numbers_as_well_is_shown_with_these(
        self, given: bool
    ) -> None:
        rows = np.arange(64.0).reshape(8, 8) % 7 / 4.0
        bias = {"selection_bias": np.where(np.isfinite(WILD), WILD, -np.inf)}
        case = Case(
            config=RouterConfig(num_experts=8, top_k=3),
            inputs=RouterInputs.from_logits(rows, **bias)
            if given
            else RouterInputs(hidden=rows, gate_weight=np.eye(8), **bias),
        )
        small = reduced(case, _ignores_bias)
        assert small.config.num_experts == 2
        assert np.abs(small.inputs.selection_bias).max() <= 1.0, small.inputs.selection_bias

    def test_what_needs_an_infinity_keeps_it(self) -> None:
        inputs = RouterInputs(
            hidden=np.ones((3, 4)), gate_weight=np.ones((4, 4)), selection_bias=[0, 1, -np.inf, 1e9]
        )
        case = Case(config=RouterConfig(num_experts=4, top_k=1), inputs=inputs)

        def masks(each: Case) -> bool:
            bias = each.inputs.selection_bias
            return bias is not None and bool(np.isneginf(bias).any())

        small = reduced(case, masks)
        assert small.inputs.selection_bias.tolist() == [-np.inf], "nothing else is large"

    def test_lost_experts_of_given_logits_become_finite_with_what_carries_them(self) -> None:
        logits = np.where(np.arange(8) % 3 == 1, -np.inf, np.arange(24.0).reshape(3, 8) / 4.0)
        case = Case(
            config=RouterConfig(num_experts=8, top_k=2), inputs=RouterInputs.from_logits(logits)
        )
        small = reduced(case, _last_expert_wins)
        assert small.inputs.gate_bias is None
        assert np.isfinite(small.inputs.logits).all()
        np.testing.assert_array_equal(small.inputs.logits, small.inputs.hidden)

    def test_every_dtype_holds_what_is_near(self) -> None:
        for dtype in ("float16", "bfloat16", "float32"):
            inputs = RouterInputs(
                hidden=np.where(np.isfinite(WILD), np.clip(WILD, -32768.0, 32768.0), WILD)[None],
                gate_weight=np.ones((1, 8)),
                dtype=dtype,
            )
            case = Case(config=RouterConfig(num_experts=1, top_k=1), inputs=inputs)
            near = [each.inputs.hidden for each in nearer(case)]
            assert [np.abs(hidden).max() for hidden in near] == [16.0, 1024.0, 32768.0]

    def test_no_number_becomes_infinite(self) -> None:
        inputs = RouterInputs(hidden=np.full((1, 2), 3e38, np.float32), gate_weight=np.eye(2))
        case = Case(config=RouterConfig(num_experts=2, top_k=1), inputs=inputs)
        for reduction in kind_of(case).reductions:
            for smaller in reduction(case):
                assert np.isfinite(smaller.inputs.hidden).all()


def test_a_shared_expert_call_shrinks_to_what_fails() -> None:
    case = make_shared_case(
        kind="singular", gated=True, dtype="float32", tokens=17, hidden=33, width=16, seed=3
    )
    assert reduced(case, lambda smaller: True).size == "T=1 H=1 I=1"
    marked = case.inputs.hidden[5, 7]
    small = reduced(case, lambda smaller: bool((smaller.inputs.hidden == marked).any()))
    assert small.size.startswith("T=1 "), "one token has the value that fails"
    assert small.config == case.config

"""Plainer numbers: what is infinite, huge or NaN comes near 0, where the case still fails."""

from __future__ import annotations

import numpy as np
import pytest
from planted import (
    ignores_bias,
    last_expert_wins,
    reduced,
)

from moe_routing.conformance import Case
from moe_routing.conformance.cases.kinds import kind_of
from moe_routing.conformance.generators.plainer import nearer
from moe_routing.reference import (
    RouterConfig,
    RouterInputs,
)

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
        small = reduced(case, ignores_bias)
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
        small = reduced(case, last_expert_wins)
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

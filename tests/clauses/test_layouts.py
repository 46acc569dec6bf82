"""Answers in other types and layouts: what the specification permits, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from moe_routing.conformance import Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.implementations import Adapter, Capabilities, Claim, torch_inputs
from moe_routing.reference import RouterConfig, RouterInputs, Routing

DTYPES = ("float32", "bfloat16", "float16")
CLAIM = Claim.plain(logits_dtype=("float32",))


class HandsBack:
    """Takes logits, and returns them as they are, or in another type."""

    name = "hands-back"

    def __init__(self, given: str, returned: str) -> None:
        self.given, self.returned = given, getattr(torch, returned)

    def capabilities(self) -> Capabilities:
        return Capabilities(claims=(CLAIM,), dtypes=(self.given,), takes="logits", logits="routed")

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        self.capabilities().require(config, inputs)
        logits = torch_inputs(inputs).logits.to(self.returned)
        weights, expert_ids = logits.float().softmax(-1).topk(config.top_k)
        return Routing(weights=weights, expert_ids=expert_ids, logits=logits)


class Computes(HandsBack):
    """Takes hidden states, and returns the logits of them in a type of its own."""

    def capabilities(self) -> Capabilities:
        return Capabilities(claims=(CLAIM,), dtypes=(self.given,), logits="routed")

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        self.capabilities().require(config, inputs)
        given = torch_inputs(inputs)
        logits = (given.hidden.float() @ given.gate_weight.float().T).to(self.returned)
        weights, expert_ids = logits.float().softmax(-1).topk(config.top_k)
        return Routing(weights=weights, expert_ids=expert_ids, logits=logits)


def checked(adapter: Adapter, clause: str, **parts: Any) -> ClauseResult:
    found = CLAUSES[clause]
    return check_clause(adapter, found, Plan(clauses=(found,), max_examples=40, **parts))


class TestLogitsHandedBack:
    """A backend that is given logits made none: what it was given is precise enough."""

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_the_tensor_that_was_given_is_right(self, dtype: str) -> None:
        result = checked(HandsBack(dtype, dtype), "layout.dtypes")
        assert result.status == "pass", result.message

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_more_precise_one_is_right(self, dtype: str) -> None:
        assert checked(HandsBack(dtype, "float64"), "layout.dtypes").status == "pass"

    @pytest.mark.parametrize(
        ("given", "returned"),
        [
            ("float32", "bfloat16"),
            ("float32", "float16"),
            ("bfloat16", "float16"),
            ("float16", "bfloat16"),
        ],
    )
    def test_one_that_does_not_hold_every_value_is_refused(self, given: str, returned: str) -> None:
        result = checked(HandsBack(given, returned), "layout.dtypes")
        assert result.status == "fail"
        words = f"logits are stored in {returned}, but should be in {given} or better"
        assert result.message == words

    @pytest.mark.parametrize("dtype", DTYPES[1:])
    def test_logits_that_a_backend_made_are_as_precise_as_the_caller_asks(self, dtype: str) -> None:
        result = checked(Computes(dtype, dtype), "layout.dtypes")
        assert result.message == f"logits are stored in {dtype}, but should be in float32 or better"

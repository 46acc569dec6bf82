"""Answers in other types and layouts: what the specification permits, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from moe_routing.conformance import Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.replay import replay_case
from moe_routing.conformance.checking.results import ClauseResult
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.events import EVENTS
from moe_routing.implementations import (
    Adapter,
    Capabilities,
    Claim,
    FlatRouting,
    RoutingMap,
    torch_inputs,
)
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route

FLAT = ("layout.flat-token-order", "layout.flat-pairing")
MAP = ("layout.map-zero-off-route",)
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


def checked(adapter: Adapter, clause: str, *, draws: int = 40) -> ClauseResult:
    found = CLAUSES[clause]
    return check_clause(adapter, found, Plan(clauses=(found,), max_examples=draws))


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
    def test_logits_that_a_backend_made_are_as_precise_as_the_caller_requires(
        self, dtype: str
    ) -> None:
        result = checked(Computes(dtype, dtype), "layout.dtypes")
        assert result.message == f"logits are stored in {dtype}, but should be in float32 or better"


class Mixed:
    """Right, in the layout that ``which`` names for a call; ``leak`` is added off the route."""

    name = "mixed"

    def __init__(
        self, which: Callable[[RouterConfig, RouterInputs], str], leak: float = 0.0
    ) -> None:
        self.which, self.leak = which, leak

    def capabilities(self) -> Capabilities:
        return Capabilities(claims=(Claim(expert_table=(False,)),))

    def route(
        self, config: RouterConfig, inputs: RouterInputs
    ) -> Routing | FlatRouting | RoutingMap:
        self.capabilities().require(config, inputs)
        right = route(RouterConfig(**vars(config)), inputs)
        layout = self.which(config, inputs)
        if layout == "Routing":
            return right
        make = self._flat if layout == "FlatRouting" else self._map
        return make(right, inputs.num_tokens, config)

    def _flat(self, right: Routing, tokens: int, config: RouterConfig) -> FlatRouting:
        return FlatRouting(
            scores=right.weights.reshape(-1),
            token_indices=np.repeat(np.arange(tokens), config.top_k).astype(np.int32),
            expert_indices=right.expert_ids.reshape(-1).astype(np.int32),
            num_tokens=tokens,
        )

    def _map(self, right: Routing, tokens: int, config: RouterConfig) -> RoutingMap:
        probs = np.full((tokens, config.num_experts), self.leak)
        routing_map = np.zeros(probs.shape, bool)
        np.put_along_axis(probs, right.expert_ids, right.weights, axis=1)
        np.put_along_axis(routing_map, right.expert_ids, True, axis=1)
        return RoutingMap(probs=probs, routing_map=routing_map)


def alone(layout: str, others: str) -> Callable[[RouterConfig, RouterInputs], str]:
    """One layout for a single token, another one for batches."""
    return lambda config, inputs: layout if inputs.num_tokens == 1 else others


def grouped(layout: str, others: str) -> Callable[[RouterConfig, RouterInputs], str]:
    """One layout for grouped calls of several tokens, another one for all else."""
    return lambda c, i: layout if c.groups is not None and i.num_tokens > 1 else others


class TestLayoutsThatVary:
    """Each answer may be in any layout; clauses about one look at the answers in that one."""

    @pytest.mark.parametrize("which", [alone, grouped])
    @pytest.mark.parametrize("others", ["Routing", "FlatRouting", "RoutingMap"])
    @pytest.mark.parametrize("layout", ["Routing", "FlatRouting", "RoutingMap"])
    def test_a_right_answer_in_any_layout_is_right(
        self, which: Callable[..., Any], layout: str, others: str
    ) -> None:
        adapter = Mixed(which(layout, others))
        for clause in (*FLAT, *MAP, "layout.well-formed", "layout.dtypes", "layout.contiguous"):
            result = checked(adapter, clause, draws=8)
            there = {layout, others} >= {CLAUSES[clause].layout or layout}
            assert result.status in (("pass", "unsupported") if there else ("unsupported",)), (
                f"{clause}: {result.message}"
            )
            assert "the suite itself" not in result.message

    @pytest.mark.parametrize("which", [alone, grouped])
    @pytest.mark.parametrize("turned", [False, True])
    def test_a_leaking_map_is_found_wherever_there_is_one(
        self, which: Callable[..., Any], turned: bool
    ) -> None:
        layouts = ("RoutingMap", "Routing")[:: -1 if turned else 1]
        result = checked(Mixed(which(*layouts), leak=0.5), "layout.map-zero-off-route")
        assert result.status == "fail", result.message
        assert "=0.5 off the map, but should be 0" in result.message

    def test_an_event_counts_only_where_the_answer_was_in_the_layout(self) -> None:
        result = checked(Mixed(alone("Routing", "RoutingMap")), "layout.map-zero-off-route")
        events = {"any-case": "witnessed", "one-token": "unreachable"}
        assert (result.status, result.events) == ("pass", events)

    def test_a_layout_that_is_never_returned_is_unsupported(self) -> None:
        for clause in FLAT:
            result = checked(Mixed(alone("Routing", "RoutingMap")), clause)
            words = "the adapter does not return FlatRouting"
            assert (result.status, result.message) == ("unsupported", words)

    def test_a_replay_looks_at_the_answer_to_its_own_case(self) -> None:
        case = EVENTS["one-token"].constructed(Mixed.capabilities(None))
        clause = CLAUSES["layout.map-zero-off-route"]
        for layout, status in (("RoutingMap", "pass"), ("Routing", "unsupported")):
            adapter = Mixed(alone(layout, "RoutingMap"))
            assert replay_case(adapter, clause, case).status == status

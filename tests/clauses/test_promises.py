"""Promises: what only some backends are held to, and what nobody else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Plan
from moe_routing.conformance.checking.clause_run import check_clause
from moe_routing.conformance.checking.scope import clauses_for
from moe_routing.conformance.clauses import CLAUSES
from moe_routing.conformance.judge import Answer, Bounds, judge
from moe_routing.conformance.judge.promised import ascending_slots, higher_of_tied
from moe_routing.conformance.zoo import HONEST
from moe_routing.implementations import (
    Capabilities,
    Numerics,
    Promises,
    RoutingMap,
    load_adapter,
    wire,
)
from moe_routing.reference import Groups, RouterConfig, RouterInputs, Routing, route

PROMISED = {
    "selection.ties-to-the-lower-id": {"ties": "lowest"},
    "layout.slots-descend": {"slots": "descending"},
    "invariance.batch-bits": {"same_bits": True},
    "robustness.served-by": {"served_by": ("fused",)},
}


def run(clause: str, answer: Any = None, **promises: Any) -> Any:
    """Return the result of a clause on the reference, some of whose answer is replaced."""
    adapter = load_adapter("reference")
    claimed = replace(adapter.capabilities(), promises=Promises(**promises))
    adapter.capabilities = lambda: claimed
    if answer is not None:
        adapter.route = lambda config, inputs: answer(config, inputs)
    chosen = CLAUSES[clause]
    return check_clause(adapter, chosen, Plan(clauses=(chosen,), max_examples=5))


@pytest.mark.parametrize(("clause", "promises"), PROMISED.items(), ids=PROMISED)
def test_nobody_is_held_to_what_is_not_promised(clause: str, promises: dict[str, Any]) -> None:
    (field,) = promises
    found = run(clause)
    assert found.status == "unsupported"
    assert f"the capabilities have promises.{field}=" in found.message


@pytest.mark.parametrize("clause", [*PROMISED][:2])
def test_the_reference_may_promise_its_ties_and_its_order(clause: str) -> None:
    assert run(clause, **PROMISED[clause]).status == "pass"


def test_an_answer_without_a_kernel_or_with_another_is_told_by_name() -> None:
    promises = PROMISED["robustness.served-by"]
    found = run("robustness.served-by", **promises)
    assert (found.status, found.message) == ("fail", "names no kernel, but should be by 'fused'")

    def served(config: RouterConfig, inputs: RouterInputs) -> Routing:
        return replace(route(config, inputs), kernel="eager")

    found = run("robustness.served-by", served, **promises)
    assert found.message == "was served by 'eager', but should be by 'fused'"
    assert run("robustness.served-by", served, served_by=("fused", "eager")).status == "pass"


def judged(ids: list[int], logits: list[float], **parts: Any) -> Any:
    config = RouterConfig(num_experts=len(logits), top_k=len(ids), groups=parts.pop("groups", None))
    inputs = RouterInputs.from_logits(np.array([logits], np.float32), **parts)
    bounds = Bounds(config, inputs, Numerics())
    weights = np.full((1, len(ids)), 0.5)
    return judge(bounds, Answer(weights=weights, expert_ids=np.array([ids])))


@pytest.mark.parametrize(
    ("ids", "logits", "parts", "found"),
    [
        ([0, 1], [2.0, 1.0, 1.0], {}, None),
        ([0, 2], [2.0, 1.0, 1.0], {}, (0, 2, 1)),
        ([1, 2], [1.0, 1.0, 1.0], {}, (0, 1, 0)),
        ([0, 2], [2.0, 1.0, 1.0], {"selection_bias": [0.0, 0.0, 0.25]}, None),
        ([2, 3], [1.0] * 4, {"groups": Groups(count=2, kept=1)}, None),
        ([1], [-0.0, 0.0], {}, (0, 1, 0)),
    ],
    ids=["lower", "higher", "not-the-lowest", "biased-apart", "other-group", "zeros"],
)
def test_of_twins_the_higher_alone_is_wrong(
    ids: list[int], logits: list[float], parts: dict[str, Any], found: Any
) -> None:
    parts = {n: x if n == "groups" else np.array(x, np.float32) for n, x in parts.items()}
    assert higher_of_tied(judged(ids, logits, **parts)) == found


def test_experts_whose_logits_rounding_can_part_are_no_twins() -> None:
    config = RouterConfig(num_experts=2, top_k=1)
    row = np.array([[0.1, 0.7, 0.3]], np.float32)
    inputs = RouterInputs(hidden=row, gate_weight=np.repeat(row, 2, axis=0))
    bounds = Bounds(config, inputs, Numerics())
    answer = Answer(weights=np.array([[0.5]]), expert_ids=np.array([[1]]))
    assert higher_of_tied(judge(bounds, answer)) is None
    own = replace(answer, logits=np.full((1, 2), np.float32(0.59)))
    assert higher_of_tied(judge(bounds, own, logits="routed")) == (0, 1, 0)


@pytest.mark.parametrize(
    ("ids", "found"), [([0, 1, 2], None), ([1, 0, 2], (0, 0, 1)), ([0, 2, 1], (0, 1, 2))]
)
def test_a_slot_that_certainly_ranks_below_the_next_is_named(ids: list[int], found: Any) -> None:
    assert ascending_slots(judged(ids, [3.0, 2.0, 1.0, 0.0])) == found
    assert ascending_slots(judged(ids, [1.0, 1.0, 1.0, 0.0])) is None


def test_a_map_has_no_slots_to_descend() -> None:
    def mapped(config: RouterConfig, inputs: RouterInputs) -> RoutingMap:
        plain, shape = route(config, inputs), (inputs.num_tokens, config.num_experts)
        probs, chosen = np.zeros(shape), np.zeros(shape, bool)
        np.put_along_axis(probs, plain.expert_ids, plain.weights, axis=1)
        np.put_along_axis(chosen, plain.expert_ids, True, axis=1)
        return RoutingMap(probs=probs, routing_map=chosen)

    found = run("layout.slots-descend", mapped, slots="descending")
    assert found.status != "fail", found.message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ties": "lower"}, "Expected Promises.ties to be one of free, lowest but got"),
        ({"slots": True}, "Expected Promises.slots to be one of free, descending but got True"),
        ({"same_bits": 1}, "Expected Promises.same_bits to be True or False but got 1"),
        ({"served_by": "fused"}, "served_by to be a tuple of names of kernels but got 'fused'"),
    ],
)
def test_what_is_no_promise_is_refused_in_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        Promises(**given)
    assert "\n" not in str(raised.value)


def test_promises_and_kernels_come_from_other_processes_too() -> None:
    said = {"ties": "lowest", "slots": "descending", "same_bits": True, "served_by": ["fused"]}
    hello = {"protocol": 1, "name": "mine", "capabilities": {"promises": said}}
    claimed: Capabilities = wire.read_hello({"hello": hello}).capabilities
    assert claimed.promises == HONEST["promises-that-are-kept"].claims.promises.__class__(
        ties="lowest", slots="descending", same_bits=True, served_by=("fused",)
    )
    array = {"dtype": "float32", "shape": [1, 1], "values": [1.0]}
    ids = {"dtype": "int64", "shape": [1, 1], "values": [0]}
    reply = {"routing": {"weights": array, "expert_ids": ids, "kernel": "fused"}}
    assert wire.read_answer(reply).kernel == "fused"
    reply["routing"]["kernel"] = 3
    with pytest.raises(wire.ProtocolError, match="sent kernel=3; expected the name of a kernel"):
        wire.read_answer(reply)


def test_nobody_else_is_held_to_a_promise() -> None:
    adapter = load_adapter("reference")
    plain = adapter.capabilities()
    held = {each.id for each in clauses_for(CLAUSES.values(), (), plain)}
    assert held.isdisjoint(PROMISED)
    one = replace(plain, promises=Promises(slots="descending"))
    more = {each.id for each in clauses_for(CLAUSES.values(), (), one)}
    assert more - held == {"layout.slots-descend"}


def test_who_asks_for_a_promise_alone_is_told_that_it_is_not_made() -> None:
    chosen = [CLAUSES[each] for each in PROMISED]
    assert clauses_for(chosen, (), load_adapter("reference").capabilities()) == chosen

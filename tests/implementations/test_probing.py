"""Probing experts: the routes of blocks that have no router function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_routing.conformance import Plan, Settings, check, in_process, select_clauses
from moe_routing.implementations import (
    Capabilities,
    Claim,
    Limits,
    as_numpy,
    probed_routes,
    torch_inputs,
    unit_rows,
)
from moe_routing.reference import Routing

torch = pytest.importorskip("torch")


def block(hidden: Any, gate: Any, top_k: int, experts: Any) -> Any:
    """A block as Mixtral's of old: a loop over experts, each of which is given its tokens."""
    weights, ids = torch.topk((hidden.float() @ gate.float().T).softmax(-1), top_k)
    output = torch.zeros(hidden.shape, dtype=torch.float32)
    for number, expert in enumerate(experts):
        token, slot = torch.where(ids == number)
        output.index_add_(0, token, expert(hidden[token]) * weights[token, slot, None])
    return output


class Whole:
    """The adapter of the block; the page on adapters has it."""

    name, limits = "whole", Limits(max_experts=8, max_tokens=32)
    caps = Capabilities(claims=(Claim.plain(),), dtypes=("float32",), limits=limits)

    def capabilities(self) -> Capabilities:
        return self.caps

    def route(self, config: Any, inputs: Any) -> Any:
        self.caps.require(config, inputs)
        given = torch_inputs(inputs)

        def run(experts: Any) -> Any:
            return block(given.hidden, given.gate_weight, config.top_k, experts)

        return probed_routes(run, num_experts=config.num_experts, num_tokens=inputs.num_tokens)


def test_a_block_is_judged_as_a_router_is(tmp_path: Path) -> None:
    clauses = select_clauses(["selection.valid-top-k", "weights.match", "robustness.empty-batch"])
    plan = Plan(clauses=clauses, max_examples=5)
    result = check(in_process({"whole": Whole()}, plan), plan, Settings(cases=tmp_path))
    assert [each.status for each in result.adapters[0].clauses] == ["pass"] * 3


@pytest.mark.parametrize("name", ["torch", "numpy", "mlx.core", "jax.numpy"])
def test_each_expert_is_told_from_the_others(name: str) -> None:
    xp = pytest.importorskip(name)
    hidden = xp.ones((2, 3)) * float("nan")  # what experts are given counts for nothing

    def run(experts: Any) -> Any:  # token 0 to experts 6 and 1, token 1 to 3 with 0 and to 6
        first = experts[6](hidden[:1]) * 0.25 + experts[1](hidden[:1]) * 0.75
        second = experts[3](hidden[1:]) * 0.0 + experts[6](hidden[1:]) * 2.0
        return xp.concatenate([first, second])

    found = probed_routes(run, num_experts=7, num_tokens=2)
    assert np.argwhere(found.routing_map).tolist() == [[0, 1], [0, 6], [1, 3], [1, 6]]
    assert found.probs[found.routing_map].tolist() == [0.75, 0.25, 0.0, 2.0]


@pytest.mark.parametrize("name", ["torch", "mlx.core", "jax.numpy"])
def test_slots_keep_their_order(name: str) -> None:
    xp = pytest.importorskip(name)
    ids = xp.asarray([[4, 2, 4]])
    rows = unit_rows(ids, xp)
    assert tuple(rows.shape) == (1, 3, 3)
    weights = xp.asarray([[0.5, 0.25, 0.125]])
    assert as_numpy((rows * weights[..., None]).sum(-2)).tolist() == [[0.5, 0.25, 0.125]]


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[T, H\] for T=3 but got \(2, 4\)"):
        probed_routes(lambda experts: np.zeros((2, 4)), num_experts=2, num_tokens=3)


def test_the_answer_of_stacked_experts_is_a_routing() -> None:
    ids, weights = torch.tensor([[1, 0]]), torch.tensor([[0.5, 0.25]])
    found = (unit_rows(ids, torch) * weights[..., None]).sum(-2)
    assert Routing(weights=found, expert_ids=ids).weights.tolist() == [[0.5, 0.25]]

"""The balls of experts' gradients: against honest code in torch, and as tight as they are said."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from near_expert_gradients import learned
from near_experts import ran

from moe_routing.conformance.calls.expert_gradients import ExpertGradientCase
from moe_routing.conformance.generators.expert_gradients import (
    choose_expert_gradient_case,
    exact_case,
)
from moe_routing.conformance.generators.experts import VALUES, Wishes
from moe_routing.conformance.judge.expert_gradients import Learning
from moe_routing.conformance.trial.expert_gradients import learning_of
from moe_routing.implementations import Capabilities, load_adapter
from moe_routing.reference import EXPERT_GRADIENTS, expert_gradients


def drawn(seed: int, **offers: Any) -> ExpertGradientCase:
    rng = random.Random(seed)
    wishes = Wishes(offers=offers)
    return choose_expert_gradient_case(
        lambda name, offered: rng.choice(offered), Capabilities(), wishes
    )


def wrong_in(learning: Learning, found: dict[str, Any]) -> list[str]:
    judged = learning.judged({name: np.asarray(each, float) for name, each in found.items()})
    return [name for name, each in judged.items() if each.wrong.any()]


@pytest.mark.parametrize("values", VALUES)
def test_eager_torch_is_within_whatever_is_drawn(values: str) -> None:
    pytest.importorskip("torch")
    torch: Any = load_adapter("torch")
    for seed in range(30):
        case = drawn(seed, values=(values,))
        found = torch.expert_gradients(*case.arguments(case.inputs)).arrays()
        honest = {name: each.double().numpy() for name, each in found.items()}
        assert not wrong_in(learning_of(case), honest), (seed, case.config, case.size)


def test_a_gradient_that_its_gate_may_overflow_on_the_way_is_undecided() -> None:
    """In float16 the gradient times the gate may be infinite, and infinity times 0 is NaN."""
    case = ran([[0]], experts=1, dtype="float16", hidden=1, width=1, activation="silu")
    arrays = {"hidden": -300.0, "gate_weight": 1.0, "up_weight": 1.0, "down_weight": 1.0}
    filled = {n: np.full_like(getattr(case.inputs, n), v) for n, v in arrays.items()}
    made = learned(replace(case, inputs=replace(case.inputs, weights=[[1.0]], **filled)))
    large = replace(made, inputs=replace(made.inputs, cotangent=[[4.0]]))
    assert not learning_of(large).permitted["gate_weight"].decided.any()
    small = replace(made, inputs=replace(made.inputs, cotangent=[[0.0625]]))
    assert learning_of(small).permitted["gate_weight"].decided.all()


def test_a_route_of_weight_0_may_have_its_gradient_or_none() -> None:
    case = ran([[0, 1]])
    case = replace(case, inputs=replace(case.inputs, weights=[[0.0, 0.5]]))
    learning = learning_of(learned(case))
    due = np.asarray(learning.reference.weights)
    assert due[0, 0] != 0.0
    others = {n: getattr(learning.reference, n) for n in learning.permitted}
    assert not wrong_in(learning, others)
    assert not wrong_in(learning, {**others, "weights": due * [[0.0, 1.0]]})
    assert wrong_in(learning, {**others, "weights": due * [[0.5, 1.0]]}) == ["weights"]
    assert wrong_in(learning, {**others, "weights": due * [[1.0, 0.0]]}) == ["weights"]


def test_at_a_kink_either_slope_is_right() -> None:
    case = ran([[0]], experts=1, gated=False, hidden=1, width=1)
    at_zero = {"hidden": [[0.0]], "up_weight": [[[2.0]]], "weights": [[1.0]]}
    zeros = replace(case, inputs=replace(case.inputs, **at_zero))
    learning = learning_of(learned(zeros))
    at = learning.cotangent * case.inputs.down_weight[0].T * 2.0
    assert at.all()
    for slope in (0.0, 0.5, 1.0):
        assert learning.permitted["hidden"].contains(slope * at).all()
    assert not learning.permitted["hidden"].contains(-at).any()


def test_what_no_order_rounds_has_no_allowance() -> None:
    base = ran([[0, 1], [1, 0], [0, 1]], hidden=8, width=8, dtype="bfloat16")
    case = exact_case(np.random.default_rng(1), base)
    learning = learning_of(case)
    firm = learning.permitted["up_weight"].rad == 0.0
    assert firm[:2].mean() > 0.5
    due = np.asarray(learning.reference.up_weight)
    assert (learning.permitted["up_weight"].mid == due)[firm].all()


def test_one_token_less_is_wrong_in_each_gradient() -> None:
    case = drawn(
        3,
        tokens=(17,),
        values=("normal",),
        dtype=("float32",),
        absence=("none",),
        activation=("silu",),
    )
    learning = learning_of(case)
    ids, weights = np.array(case.inputs.expert_ids), np.array(case.inputs.weights)
    ids[0], weights[0] = -1, 0.0
    fewer = replace(case.inputs.forward, expert_ids=ids, weights=weights)
    lost = expert_gradients(case.config, fewer, case.inputs.cotangent)
    found = wrong_in(learning, lost.arrays())
    assert set(found) == {name for name in EXPERT_GRADIENTS if name in learning.permitted}

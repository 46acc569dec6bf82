"""The reference gradients of experts: against torch in float64, and where routes are missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moe_routing.reference import ExpertGradients, ExpertsConfig, ExpertsInputs, expert_gradients
from moe_routing.reference.activations import ACTIVATIONS, CLAMPED

T, H, F, E, K = 5, 6, 4, 4, 2
IDS = np.array([[0, 1], [2, 2], [-1, 0], [1, -1], [-1, -1]])  # nobody goes to expert 3
RNG = np.random.default_rng(3)
COTANGENT = (RNG.integers(-16, 17, (T, H)) / 4.0).astype(np.float32)


def given(gated: bool = True, biased: bool = True, ids: Any = IDS) -> ExpertsInputs:
    rng = np.random.default_rng(5)

    def drawn(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    arrays = {"up_weight": drawn(E, F, H), "down_weight": drawn(E, H, F)}
    arrays |= {"gate_weight": drawn(E, F, H)} if gated else {}
    if biased:
        arrays |= {"up_bias": drawn(E, F), "down_bias": drawn(E, H)}
        arrays |= {"gate_bias": drawn(E, F)} if gated else {}
    weights = np.where(ids < 0, 0, drawn(T, K)).astype(np.float32)
    return ExpertsInputs(hidden=drawn(T, H), expert_ids=ids, weights=weights, **arrays)


def by_torch(config: ExpertsConfig, inputs: ExpertsInputs) -> dict[str, Any]:
    import torch

    from moe_routing.implementations.torch_experts import run_experts

    tensors = {n: torch.from_numpy(np.array(each)) for n, each in inputs.arrays().items()}
    leaves = {n: t.double().requires_grad_() for n, t in tensors.items() if t.is_floating_point()}
    output = run_experts(config, {**tensors, **leaves})
    found = torch.autograd.grad(
        output, [*leaves.values()], torch.from_numpy(COTANGENT).double(), allow_unused=True
    )
    return {
        name: np.zeros(inputs.arrays()[name].shape) if each is None else each.numpy()
        for name, each in zip(leaves, found, strict=True)
    }


@pytest.mark.parametrize("weight_on", ["output", "input"])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_gradient_is_that_of_torch_in_float64(
    activation: Any, gated: bool, weight_on: Any
) -> None:
    if activation == CLAMPED and not gated:
        return
    config = ExpertsConfig(
        num_experts=E, activation=activation, gated=gated, weight_on=weight_on, limit=0.5
    )
    inputs = given(gated)
    found = expert_gradients(config, inputs, COTANGENT).arrays()
    due = by_torch(config, inputs)
    assert set(found) == set(due)
    for name, each in due.items():
        np.testing.assert_allclose(found[name], each, rtol=1e-11, atol=1e-12, err_msg=name)


def test_absent_routes_and_empty_experts_have_no_gradient() -> None:
    found = expert_gradients(ExpertsConfig(num_experts=E), given(), COTANGENT)
    assert not np.asarray(found.weights)[IDS < 0].any()
    assert not found.hidden[4].any()
    assert not any(each[3].any() for name, each in found.arrays().items() if "_" in name)


def test_the_gradient_of_a_weight_is_the_cotangent_times_the_answer_of_its_expert() -> None:
    from moe_routing.reference import expert_outputs

    config, inputs = ExpertsConfig(num_experts=E), given()
    found = expert_gradients(config, inputs, COTANGENT)
    due = (expert_outputs(config, inputs) * COTANGENT[:, None]).sum(axis=2)
    np.testing.assert_allclose(found.weights, due)


def test_an_input_that_is_not_there_has_none() -> None:
    plain = ExpertsConfig(num_experts=E, gated=False, activation="relu")
    found = expert_gradients(plain, given(gated=False, biased=False), COTANGENT)
    assert set(found.arrays()) == {"hidden", "weights", "up_weight", "down_weight"}
    assert isinstance(found, ExpertGradients)


def test_a_cotangent_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected cotangent of shape \[T, H\] with T=5 and H=6"):
        expert_gradients(ExpertsConfig(num_experts=E), given(), COTANGENT[:, :2])

"""The gradients of adapters of torch experts: by autograd, unpacked as the call has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from expert_calls import experts_call

from moe_routing.conformance.generators.expert_gradients import plain_cotangent
from moe_routing.implementations import load_adapter, torch_expert_gradients
from moe_routing.reference import ExpertGradients, expert_gradients

ADAPTERS = (
    "torch",
    "experts:eager",
    "experts:batched_mm@gpt_oss",
    "experts:grouped_mm@openai_privacy_filter",
    "experts:eager@aria",
    "experts:grouped_mm@nemotron_h",
    "torchtitan-experts",
    "megatron-core",
)


@pytest.mark.parametrize("name", ADAPTERS)
def test_gradients_come_back_by_the_names_of_the_call(name: str) -> None:
    pytest.importorskip("torch")
    backend: Any = load_adapter(name)
    config, inputs = experts_call(backend, backend.capabilities().computes.activations[0], False)
    cotangent = plain_cotangent(inputs.num_tokens, inputs.hidden_size)
    try:
        found = backend.expert_gradients(config, inputs, cotangent).arrays()
    except ImportError as error:
        pytest.skip(str(error))
    due = expert_gradients(config, inputs, cotangent).arrays()
    assert set(found) == set(due)
    near = 1e-4 if inputs.dtype == "float32" else 1e-1
    for each, array in due.items():
        np.testing.assert_allclose(found[each].float().numpy(), array, rtol=near, atol=near)


class Detached:
    """Experts without a graph."""

    name = "detached"

    def experts(self, config: Any, inputs: Any) -> Any:
        import torch

        return torch.zeros(inputs.hidden.shape)

    expert_gradients = torch_expert_gradients


def test_an_output_without_a_graph_has_no_gradient() -> None:
    pytest.importorskip("torch")
    config, inputs = experts_call(load_adapter("torch"), "silu", False)
    found = Detached().expert_gradients(config, inputs, inputs.hidden)
    assert found.arrays() == ExpertGradients().arrays() == {}

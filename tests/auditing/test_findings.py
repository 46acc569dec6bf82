"""What docs/findings.md says that the audit found, each at its smallest case."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")
import torch
from adapter_calls import needs_axolotl
from tiny_models import batch_for, tiny_model
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

from moe_routing.conformance import audit
from moe_routing.implementations._axolotl import kernel_module
from moe_routing.implementations.models.passing import CannotAudit


def test_deepseek_v4_does_not_run_in_float16() -> None:
    model = tiny_model("deepseek_v4", "float16")
    with pytest.raises(CannotAudit, match=r"The model raised RuntimeError: .* same dtype"):
        audit(model, batch_for("deepseek_v4", model, tokens=8))


@needs_axolotl
def test_scattermoe_loses_groups_and_scale_of_a_newer_block() -> None:
    layers = kernel_module("scattermoe_lora", "layers")
    config = DeepseekV3Config(
        hidden_size=4,
        moe_intermediate_size=1,
        n_routed_experts=4,
        num_experts_per_tok=1,
        n_group=2,
        topk_group=1,
        n_shared_experts=1,
        routed_scaling_factor=2.5,
    )
    block, hidden = DeepseekV3MoE(config), torch.tensor([[2.0, -4.0, 1.0, 1.0]])
    with torch.no_grad():
        block.gate.weight.copy_(torch.eye(4))
        _, weights, ids = block.gate(hidden)
        own, chosen, *_ = layers._route(block, block.gate, hidden, block.gate.weight, None)
    assert (ids.item(), weights.item()) == (2, 2.5)
    assert (chosen.item(), own.item()) == (0, 1.0)

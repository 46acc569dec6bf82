"""Patches that really happen, planted: each is red, and named by the path of its module."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest

pytest.importorskip("transformers")
import torch
from tiny_models import HIDDEN, batch_for, tiny_model
from torch.nn.functional import linear

from moe_routing.conformance import Audit, audit

FAMILIES = ("deepseek_v3", "qwen2_moe")
WIDE = {"moe_intermediate_size": HIDDEN}
TOKENS = 16
MANY = 96
"""Tokens among which one is close enough to the cut for a rounded bias to move it."""


def bias_rounded(model: Any) -> str:
    """The selection bias is cast to bfloat16 on the way."""
    gate = moe(model).gate
    forward, exact = gate.forward, gate.e_score_correction_bias

    def patched(self: Any, hidden: Any) -> Any:
        self.e_score_correction_bias = exact.bfloat16().float()
        try:
            return forward(hidden)
        finally:
            self.e_score_correction_bias = exact

    gate.forward = MethodType(patched, gate)
    return "gate"


def other_router(model: Any) -> str:
    """A closure in a loop over layers: every block calls the last router that there was."""
    block, gate = moe(model), moe(model, 0).gate

    def patched(self: Any, hidden: Any) -> Any:
        flat = hidden.view(-1, hidden.shape[-1])
        _, weights, ids = gate(flat)
        routed = self.experts(flat, ids, weights).view(hidden.shape)
        return routed + shared(self, hidden)

    block.forward = MethodType(patched, block)
    return "gate"


def experts_transposed(model: Any) -> str:
    """The last matrix of each expert is read by columns."""
    experts = moe(model).experts

    def patched(self: Any, hidden: Any, ids: Any, weights: Any) -> Any:
        total = torch.zeros_like(hidden)
        for expert in range(self.num_experts):
            tokens, slots = torch.where(ids == expert)
            gate, up = linear(hidden[tokens], self.gate_up_proj[expert]).chunk(2, dim=-1)
            answer = linear(self.act_fn(gate) * up, self.down_proj[expert].T)
            total.index_add_(0, tokens, (answer * weights[tokens, slots, None]).to(total.dtype))
        return total

    experts.forward = MethodType(patched, experts)
    return "experts"


def scaled_twice(model: Any) -> str:
    """The routed scaling factor is in the kernel, and in the router that was left."""
    gate = moe(model).gate
    forward, factor = gate.forward, getattr(gate, "routed_scaling_factor", 2.5)

    def patched(self: Any, hidden: Any) -> Any:
        logits, weights, ids = forward(hidden)
        return logits, weights * factor, ids

    gate.forward = MethodType(patched, gate)
    return "gate"


def shared_dropped(model: Any) -> str:
    """A fused block without the shared expert."""
    block = moe(model)

    def patched(self: Any, hidden: Any) -> Any:
        flat = hidden.view(-1, hidden.shape[-1])
        _, weights, ids = self.gate(flat)
        return self.experts(flat, ids, weights).view(hidden.shape)

    block.forward = MethodType(patched, block)
    return ""


def router_detached(model: Any) -> str:
    """A router that a kernel runs without a graph, so that it never learns."""
    gate = moe(model).gate
    forward = gate.forward
    gate.forward = MethodType(lambda self, hidden: no_graph(forward, hidden), gate)
    return "gate"


def gradient_halved(model: Any) -> str:
    """A backward pass that returns half of the gradient of the weights."""
    gate = moe(model).gate
    forward = gate.forward

    def patched(self: Any, hidden: Any) -> Any:
        logits, weights, ids = forward(hidden)
        return logits, weights.detach() / 2 + weights / 2, ids

    gate.forward = MethodType(patched, gate)
    return "gate"


Plant = Callable[[Any], str]
PLANTS = {
    ("bias_rounded", "deepseek_v3"): (bias_rounded, "selection.valid-top-k"),
    **{
        (plant.__name__, family): (plant, clause)
        for family in FAMILIES
        for plant, clause in (
            (other_router, "logits.match"),
            (experts_transposed, "experts.match"),
            (scaled_twice, "weights.match"),
            (shared_dropped, "layer.composes"),
            (router_detached, "gradients.gate-weight"),
            (gradient_halved, "gradients.logits"),
        )
    },
}


def moe(model: Any, layer: int = -1) -> Any:
    """Return a MoE block of a model by its number."""
    blocks = [each.mlp for each in model.model.layers if hasattr(each.mlp, "gate")]
    return blocks[layer]


def shared(block: Any, hidden: Any) -> Any:
    if hasattr(block, "shared_experts"):
        return block.shared_experts(hidden)
    return torch.sigmoid(block.shared_expert_gate(hidden)) * block.shared_expert(hidden)


def no_graph(forward: Callable[[Any], Any], hidden: Any) -> Any:
    with torch.no_grad():
        return forward(hidden)


def patched_audit(family: str, plant: Plant, dtype: str) -> tuple[Audit, str]:
    """Return the audit of a model with a plant, and the path of the module that is to be named."""
    more = (
        {"num_hidden_layers": 3, "mlp_layer_types": ["sparse"] * 3} if family != "qwen2_moe" else {}
    )
    model = tiny_model(family, dtype, **WIDE, **more)
    batch = batch_for(family, model, MANY if plant is bias_rounded else TOKENS)
    part = plant(model)
    block = next(path for path, each in model.named_modules() if each is moe(model))
    return audit(model, batch), f"{block}.{part}".rstrip(".")


IN_16_BITS = [(name, family, "bfloat16") for name, family in PLANTS if family == "deepseek_v3"]


@pytest.mark.parametrize(
    ("name", "family", "dtype"), [*[(*each, "float32") for each in PLANTS], *IN_16_BITS]
)
def test_a_planted_patch_is_red_at_its_path(name: str, family: str, dtype: str) -> None:
    plant, clause = PLANTS[name, family]
    found, path = patched_audit(family, plant, dtype)
    red = {(each.path, each.clause) for each in found.failures}
    assert (path, clause) in red, str(found)
    assert all(each.block == path or path.startswith(each.block) for each in found.failures)
    words = str(found)
    assert path in words
    assert clause in words


def fused(model: Any, wrong: bool = False) -> None:
    """Replace a block by one function that calls none of its modules."""
    block = moe(model)

    def patched(self: Any, hidden: Any) -> Any:
        flat = hidden.view(-1, hidden.shape[-1])
        _, weights, ids = type(self.gate).forward(self.gate, flat)
        weights = weights * (1 + wrong)
        routed = type(self.experts).forward(self.experts, flat, ids, weights).view(hidden.shape)
        return routed + shared(self, hidden)

    block.forward = MethodType(patched, block)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fused_block_is_judged_by_its_output_alone(family: str, dtype: str) -> None:
    model = tiny_model(family, dtype)
    fused(model)
    found = audit(model, batch_for(family, model, TOKENS))
    assert found.right, str(found)
    parts = {each.part for each in found.judged if each.block == found.blocks[-1]}
    assert parts == {"layer"}
    fused(model, wrong=True)
    found = audit(model, batch_for(family, model, TOKENS))
    assert [each.path for each in found.failures] == [found.blocks[-1]], str(found)

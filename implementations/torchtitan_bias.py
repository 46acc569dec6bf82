"""torchtitan's hook that moves the selection bias before a step of the optimizer."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.balances import Balance, Balances

if TYPE_CHECKING:
    from torch import Tensor

BALANCES = Balances(
    of=("bias",), update=("centred",), mode=("train",), padded=(False,), absent=(False,)
)


def moved_bias(counts: Tensor, bias: Tensor, rate: float) -> Balance:
    """Register the hook for layers with these counts ``[L, E]`` and biases, and run it once."""
    from torch import nn

    optimizer: Any = importlib.import_module("torchtitan.components.optimizer.optimizer")
    layers = {}
    for number, (each, start) in enumerate(zip(counts, bias, strict=True)):
        block: Any = nn.Module()
        block.moe_enabled, block.moe = True, nn.Module()
        block.moe.register_buffer("tokens_per_expert_E", each.float())
        block.moe.register_buffer("expert_bias_E", start.clone())
        block.moe.load_balance_coeff = rate
        layers[str(number)] = block
    model = nn.Module()
    model.layers = nn.ModuleDict(layers)
    hooks: list[Any] = []
    dims = SimpleNamespace(get_optional_mesh=lambda name: None, ep_enabled=False, tp=1)
    optimizers = SimpleNamespace(register_step_pre_hook=hooks.append)
    optimizer.register_moe_load_balancing_hook(optimizers, [model], dims)
    for hook in hooks:
        hook()
    import torch

    return Balance(bias=torch.stack([block.moe.expert_bias_E for block in layers.values()]))

"""torchtitan's hook that moves the selection bias before a step of the optimizer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.balances import Balance, Balances
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.implementations.torchtitan_modules import counts_of, module
from moe_routing.reference import BalanceConfig, BalanceInputs

if TYPE_CHECKING:
    from torch import Tensor

BALANCES = Balances(
    of=("bias",), update=("centred",), mode=("train",), padded=(False,), absent=(False,)
)


class TorchtitanBias(OnDevice):
    """The hook that ``register_moe_load_balancing_hook`` registers."""

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Run the hook on the counts of a step. Errors: ``Unsupported``, ``BackendMissing``."""
        BALANCES.require(config, inputs)
        optimizer = module("components.optimizer.optimizer")
        import torch

        ids = torch_tensor("expert_ids", inputs.expert_ids, dtype="int64", device=self.device)
        bias = torch_tensor("bias", inputs.bias, dtype="float32", device=self.device)
        counts = torch.stack([counts_of(each, config.num_experts) for each in ids])
        return _moved_bias(optimizer, counts, bias, config.rate)


def _moved_bias(optimizer: Any, counts: Tensor, bias: Tensor, rate: float) -> Balance:
    """Register the hook for layers with these counts ``[L, E]`` and biases, and run it once."""
    from torch import nn

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

"""Megatron-Core's update of the selection bias, in a group of one process."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

from moe_routing.implementations.balances import Balance, Balances
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.megatron_modules import core_module, moe_utils
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import BalanceConfig, BalanceInputs

_BALANCES = Balances(
    of=("bias",), update=("sign",), mode=("train",), padded=(False,), absent=(False,)
)


class MegatronBias(OnDevice):
    """``get_updated_expert_bias``, which adds up the counts of all ranks: here there is one.

    It is called for the layers of a model at once, after a step of training. The counts are made
    here: Megatron's are those of its routing map.
    """

    name = "megatron-bias"
    wraps = "megatron-core"
    claimed = Capabilities(balances=_BALANCES)

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        _BALANCES.require(config, inputs)
        import torch

        ids = torch_tensor("expert_ids", inputs.expert_ids, dtype="int64", device=self.device)
        bias = torch_tensor("bias", inputs.bias, dtype="float32", device=self.device)
        counts = torch.zeros_like(bias)
        flat = ids.flatten(1)
        counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype))
        moved = _utils(self.device).get_updated_expert_bias(counts, bias, config.rate)
        return Balance(bias=moved)


@cache
def _utils(device: str) -> ModuleType:
    """Import the functions, and make the group that the update adds up over."""
    utils, state = moe_utils(), core_module("parallel_state")
    dist = importlib.import_module("torch.distributed")
    if not dist.is_initialized():
        backend = "gloo" if device == "cpu" else "nccl"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    if not state.model_parallel_is_initialized():
        state.initialize_model_parallel()
    return utils

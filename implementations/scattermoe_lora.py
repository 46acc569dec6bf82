"""axolotl's ScatterMoE experts with LoRA on them: its fused Triton kernels."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from moe_routing.implementations._axolotl import kernel_module
from moe_routing.implementations.experts.models import USUAL
from moe_routing.implementations.scattermoe_experts import ScatterMoeExperts
from moe_routing.reference import ExpertsConfig, ExpertsInputs

if TYPE_CHECKING:
    from torch import Tensor

_RANK = 3
"""Of each expert: no power of two, so that the kernels have to mask the rest of a tile."""

_CLAIMS: dict[str, Any] = {"gradients": ("hidden", "weights"), "max_experts": 4, "max_top_k": 2}


class ScatterMoeLora(ScatterMoeExperts):
    """``scattermoe_experts_forward`` of experts whose first columns come from LoRA alone.

    The specification knows no LoRA on experts, so the case's weights are split exactly: the base
    weights have zeros in the first columns of each matrix, A picks these features of a row, and B
    holds the columns. What A makes of a row is then a number of that row: the kernels round it to
    tf32 before B is multiplied, which changes nothing that their products do not round themselves.
    The base is frozen, so hidden states and routing weights alone have gradients.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(USUAL, device, **_CLAIMS)
        self.name = "scattermoe@lora"

    def _module(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Any:
        """Build the module, and take LoRA's part out of its weights."""
        _keep_one_tile(kernel_module("scattermoe_lora", "kernels.lora_ops"))
        module = super()._module(config, inputs)
        names = ("gate_up_proj", "down_proj")
        module._scattermoe_lora = {name: _split(module, name) for name in names}
        return module


def _keep_one_tile(kernels: ModuleType) -> None:
    """Leave each kernel the first of its tile sizes: to time all of them takes minutes a case."""
    for each in vars(kernels).values():
        tiles = getattr(each, "configs", None)
        if isinstance(tiles, list):
            del tiles[1:]


def _split(module: Any, name: str) -> tuple[Tensor, Tensor, float]:
    """Take the first columns of a module's matrices out of them, into A, B and a scaling."""
    import torch

    whole = getattr(module, name).detach()
    experts, rows, columns = whole.shape
    rank = min(_RANK, columns)
    taken, base = whole[:, :, :rank], whole.clone()
    base[:, :, :rank] = 0
    setattr(module, name, torch.nn.Parameter(base, requires_grad=False))
    # the least number that 16 bits hold has no half
    scaling = 2.0 if torch.equal(taken / 2.0 * 2.0, taken) else 1.0
    picks = torch.eye(rank, columns, dtype=whole.dtype, device=whole.device)
    b = (taken / scaling).permute(1, 0, 2).reshape(rows, experts * rank)
    return picks.repeat(experts, 1), b, scaling

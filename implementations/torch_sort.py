"""Routes sorted by expert in eager PyTorch."""

from __future__ import annotations

from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import PermutationConfig, Routes, SortedRoutes

PERMUTES = Permutes(align=(1,), empty_takes=("nothing",))


class EagerSort(OnDevice):
    """A stable sort, and all that follows from it, without padding."""

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedRoutes:
        """Sort routes by expert in PyTorch, unpadded. Errors: ``Unsupported``."""
        import torch

        PERMUTES.require(config, routes)
        tensors = {
            name: torch_tensor(name, array, dtype=str(array.dtype), device=self.device)
            for name, array in routes.arrays().items()
        }
        ids = tensors["expert_ids"].flatten()
        order = ids.argsort(stable=True)[int((ids < 0).sum()) :]  # absent routes come first
        counts = torch.bincount(ids[order], minlength=config.num_experts)
        inverse = torch.full_like(ids, -1)
        inverse[order] = torch.arange(len(order), device=self.device)
        return SortedRoutes(
            routes=order,
            ends=counts.cumsum(0),
            counts=counts,
            inverse=inverse.view_as(tensors["expert_ids"]),
            gather=order // routes.top_k,
            weights=tensors["weights"].flatten()[order],
        )

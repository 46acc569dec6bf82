"""vLLM's compiled sort of routes by expert, which its grouped experts are given."""

from __future__ import annotations

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.protocol import require_gpu
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.implementations.vllm_kernels import operations
from moe_routing.reference import PermutationConfig, Routes, SortedRoutes

_SORTED = Permutes(align=(1,), empty_takes=("nothing",), order=("stable",), absent=(False,))


class MoePrepareScatter(OnDevice):
    """``moe_prepare_scatter``: where each expert starts, and the row of every route."""

    name = "vllm:moe_prepare_scatter"
    wraps = "vllm"
    claimed = Capabilities(permutes=_SORTED)

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedRoutes:
        """Call the operation as vLLM does. Errors: ``Unsupported``, ``BackendMissing``."""
        _SORTED.require(config, routes)
        require_gpu(self.name, self.device)
        import torch

        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device).int()
        experts = config.num_experts
        made, order, given, sorted_ids = ids.new_full((4, *ids.shape), -7)
        starts = torch.full((experts + 1,), -7, dtype=torch.int64, device=self.device)
        if ids.numel() == 0:  # vLLM makes no call then
            return SortedRoutes(routes=order.flatten(), starts=starts.zero_(), inverse=made)
        operator, numbers = operations(), torch.arange(ids.numel(), device=self.device).int()
        size = operator.moe_permute_sort_workspace_size(ids.numel(), experts)
        work = torch.empty(size, dtype=torch.int8, device=self.device)
        operator.moe_prepare_scatter(
            ids,
            numbers.view_as(ids),
            None,
            experts,
            experts,
            starts,
            made,
            work,
            sorted_ids,
            order,
            given,
        )
        return SortedRoutes(routes=order.flatten(), starts=starts, inverse=made)

"""torchtitan's dispatcher of one rank, which sorts tokens by their expert."""

from __future__ import annotations

from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.implementations.torchtitan_modules import counts_of, module
from moe_routing.reference import PermutationConfig, Routes, SortedTokens

PERMUTES = Permutes(align=(1,), empty_takes=("nothing",), absent=(False,), repeats=(False,))


class TorchtitanDispatcher(OnDevice):
    """``LocalTokenDispatcher``."""

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedTokens:
        """Call it on hidden states of one number. Errors: ``Unsupported``, ``BackendMissing``."""
        PERMUTES.require(config, routes)
        dispatcher = module("models.common.token_dispatcher").LocalTokenDispatcher.Config(
            num_experts=config.num_experts, top_k=routes.top_k
        )
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device)
        weights = torch_tensor("weights", routes.weights, dtype="float32", device=self.device)
        counts = counts_of(ids, config.num_experts)
        hidden = weights.new_zeros((routes.num_tokens, 1))
        _, counts, found = dispatcher.build().dispatch(hidden, weights, ids, counts)
        return SortedTokens(
            tokens=found.token_indices_experts_sorted_N,
            counts=counts,
            weights=found.topk_scores_experts_sorted_N,
        )

"""axolotl's SonicMoE from 0.17 on: a function of given experts and weights, and its parts."""

from __future__ import annotations

from moe_routing.implementations._axolotl import kernel_module
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.tensors import torch_tensor
from moe_routing.reference import PermutationConfig, Routes, SortedTokens

_PERMUTES = Permutes(align=(1,), empty_takes=("nothing",), absent=(False,))
_CAPABILITIES = Capabilities(permutes=_PERMUTES)


class SonicMoeExperts:
    """``route_and_group``, which sorts tokens by expert on any device."""

    name = "sonicmoe"
    wraps = "axolotl"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def capabilities(self) -> Capabilities:
        """Claim a stable sort without padding."""
        return _CAPABILITIES

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedTokens:
        """Call ``route_and_group``. Errors: ``Unsupported``, ``BackendMissing``."""
        _PERMUTES.require(config, routes)
        grouping = kernel_module("sonicmoe", "nvfp4_lora")
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device)
        weights = torch_tensor("weights", routes.weights, dtype="float32", device=self.device)
        hidden = weights.new_zeros((routes.num_tokens, 1))
        _, starts, tokens, sorted_weights = grouping.route_and_group(
            hidden, ids, weights, config.num_experts
        )
        return SortedTokens(tokens=tokens, counts=starts.diff(), weights=sorted_weights)

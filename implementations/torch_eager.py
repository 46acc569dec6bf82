"""The whole specification in eager PyTorch, computed in the precision that it permits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.shards import shard_of_experts
from moe_routing.implementations.tensors import torch_experts_inputs, without_graph
from moe_routing.implementations.torch_expert_gradients import (
    torch_expert_gradients,
    torch_rank_gradients,
)
from moe_routing.implementations.torch_experts import run_experts
from moe_routing.implementations.torch_layer import EagerLayer
from moe_routing.implementations.torch_on_rank import run_on_rank
from moe_routing.implementations.torch_router import EagerRouter
from moe_routing.implementations.torch_sort import PERMUTES, EagerSort
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement

if TYPE_CHECKING:
    from torch import Tensor


class EagerExperts(OnDevice):
    """The experts of a layer, in one process or spread over ranks."""

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Run the chosen experts, one after the other. Errors: ``ValueError``."""
        config.check(inputs)
        given = torch_experts_inputs(inputs, self.device)
        return without_graph(lambda: run_experts(config, given))()

    expert_gradients = torch_expert_gradients

    shard = shard_of_experts

    def on_rank(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Tensor:
        """Send rows to the ranks of their experts, and add up what comes back."""
        return run_on_rank(config, inputs, placement, self.device)

    rank_gradients = torch_rank_gradients


class TorchAdapter(EagerRouter, EagerSort, EagerExperts, EagerLayer):
    """A plain PyTorch layer, written as a model's author would; the logits are those routed."""

    name = "torch"
    wraps = "torch"
    claimed = Capabilities(
        claims=(Claim.whole(),), logits="routed", threads=True, permutes=PERMUTES
    )

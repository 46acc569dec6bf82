"""Megatron-Core's expert parallelism: its all-gather dispatcher around one MLP after another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.expert_parallel.local import own_experts, spread
from moe_routing.implementations.megatron_experts import (
    COMPUTES,
    sequential_mlp,
    unpacked_mlps,
)
from moe_routing.implementations.megatron_modules import core_module, maps_of
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.shards import Shards
from moe_routing.implementations.tensors import torch_tensor, without_graph
from moe_routing.implementations.torch_expert_gradients import torch_rank_gradients
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement

if TYPE_CHECKING:
    from torch import Tensor

_CLAIMED = Capabilities(
    computes=COMPUTES, shards=Shards(placements="even", replicas=False, batches="even")
)
_DISPATCHER = "transformer.moe.token_dispatcher"


class MegatronRank(OnDevice):
    """``MoEAllGatherTokenDispatcher`` with ``SequentialMLP``, on one rank.

    Every rank has as many tokens, since it gathers them without their sizes. On a CPU one function
    of torch has a stand-in: buffers are made on ``torch.cuda.current_device()``.
    """

    name = "ep:megatron_allgather"
    wraps = "megatron-core"
    claimed = _CLAIMED

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        self._groups: Any = None

    def preload(self) -> None:
        """Import Megatron-Core once, before there are ranks. Errors: ``BackendMissing``."""
        core_module(_DISPATCHER)
        core_module("transformer.moe.experts")

    def on_rank(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Tensor:
        """Dispatch, run this rank's experts, combine. Errors: ``Unsupported``."""
        COMPUTES.require(config, inputs)
        self._held = placement.local(rank)
        local, self._own = own_experts(config, inputs, placement, rank)
        experts = sequential_mlp(local, self._own, self.device)
        settings = SimpleNamespace(
            moe_router_topk=inputs.top_k,
            add_bias_linear=inputs.has_biases,
            moe_permute_fusion=False,
        )
        made: Any = core_module(_DISPATCHER).MoEAllGatherTokenDispatcher
        indices = self._held.tolist()
        dispatcher = made(len(indices), indices, settings, pg_collection=self._ranks())
        probs, routing_map = maps_of(inputs.routes, config.num_experts, self.device)
        hidden = torch_tensor("hidden", inputs.hidden, dtype=inputs.dtype, device=self.device)
        return without_graph(_through)(dispatcher, experts, hidden, probs, routing_map)

    rank_gradients = torch_rank_gradients

    def unpacked(self, inputs: ExpertsInputs, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return gradients by the names of ``inputs``, in arrays of all experts."""
        return spread(unpacked_mlps(self._own, found), self._held, inputs.num_experts)

    def _ranks(self) -> Any:
        """Return the groups of a dispatcher: all ranks for experts, none for tensors."""
        if self._groups is None:
            import torch

            if self.device == "cpu":
                patch.object(torch.cuda, "current_device", lambda: "cpu").start()
            core_module("parallel_state")._set_global_memory_buffer()
            every = torch.distributed.group.WORLD
            self._groups = SimpleNamespace(ep=every, expt_tp=None, tp_ep=every)
        return self._groups


def _through(
    dispatcher: Any, experts: Any, hidden: Tensor, probs: Tensor, routing_map: Tensor
) -> Tensor:
    """Return the output of a layer, by the dispatcher's steps in their order."""
    hidden, probs = dispatcher.dispatch_preprocess(hidden, routing_map, probs)
    hidden, probs = dispatcher.token_dispatch(hidden, probs)
    tokens, counts, weights = dispatcher.dispatch_postprocess(hidden, probs)
    output, _ = experts(tokens, counts, weights)
    combined = dispatcher.token_combine(dispatcher.combine_preprocess(output))
    made: Tensor = dispatcher.combine_postprocess(combined)
    return made

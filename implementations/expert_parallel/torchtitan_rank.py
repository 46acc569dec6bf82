"""torchtitan's expert parallelism: its routed experts, with the all-to-all dispatcher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.expert_parallel.local import own_experts, routed_tensors, spread
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.shards import Shards
from moe_routing.implementations.tensors import without_graph
from moe_routing.implementations.torch_expert_gradients import torch_rank_gradients
from moe_routing.implementations.torchtitan_experts import COMPUTES, routed_experts
from moe_routing.implementations.torchtitan_modules import counts_of, module
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement

if TYPE_CHECKING:
    from torch import Tensor

_CLAIMED = Capabilities(
    computes=COMPUTES,
    dtypes=("bfloat16",),
    shards=Shards(placements="even", replicas=False, batches="even"),
)


class TorchtitanRank(OnDevice):
    """``RoutedExperts`` with ``AllToAllTokenDispatcher``, on one rank.

    Every rank has as many tokens, as its dispatchers say: a layer pads the sequence before.
    """

    name = "ep:torchtitan"
    wraps = "torchtitan"
    claimed = _CLAIMED

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        self._mesh: Any = None

    def preload(self) -> None:
        """Import torchtitan once, before there are ranks. Errors: ``BackendMissing``."""
        for name in ("models.common.moe", "models.common.token_dispatcher", "distributed.utils"):
            module(name)

    def on_rank(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Tensor:
        """Run the module on one sequence, this rank's. Errors: ``Unsupported``."""
        COMPUTES.require(config, inputs)
        self._held = placement.local(rank)
        dispatchers: Any = module("models.common.token_dispatcher")
        settings = dispatchers.AllToAllTokenDispatcher.Config(
            top_k=inputs.top_k, num_experts=config.num_experts
        )
        _, own = own_experts(config, inputs, placement, rank)
        routed: Any = routed_experts(own, settings, self.device)
        routed.token_dispatcher.wire_meshes(ep_mesh=self._ranks())
        hidden, ids, weights = routed_tensors(inputs, self.device)
        counts = counts_of(ids, config.num_experts)
        output: Tensor = without_graph(routed)(hidden[None], weights[None], ids[None], counts)
        return output[0]

    rank_gradients = torch_rank_gradients

    def unpacked(self, inputs: ExpertsInputs, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return gradients by the names of ``inputs``, in arrays of all experts."""
        return spread(found, self._held, inputs.num_experts)

    def _ranks(self) -> Any:
        """Return the mesh of all ranks."""
        if self._mesh is None:
            from torch.distributed import get_world_size
            from torch.distributed.device_mesh import init_device_mesh

            kind = self.device.partition(":")[0]
            self._mesh = init_device_mesh(kind, (get_world_size(),), mesh_dim_names=("ep",))
        return self._mesh

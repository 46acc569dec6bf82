"""transformers' expert parallelism: one of its ``EPImplementation`` classes around a module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.expert_parallel.local import own_experts, routed_tensors, spread
from moe_routing.implementations.experts.models import MODELS, USUAL
from moe_routing.implementations.experts.registered import transformers_module
from moe_routing.implementations.shards import Shards
from moe_routing.implementations.tensors import without_graph
from moe_routing.implementations.torch_expert_gradients import torch_rank_gradients
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """A class of transformers' registry: ``batches`` as in ``Shards``; whether routes may be -1."""

    batches: str
    absent: tuple[bool, ...]


IMPLEMENTATIONS = {
    "all_to_all": Implementation(batches="any", absent=(False,)),
    "all_reduce": Implementation(batches="shared", absent=(False, True)),
}
"""Those that run on a CPU, by the names of the registry."""

FUNCTIONS = {"eager": 1, "grouped_mm": 8}
"""The experts functions, with what H and F are multiples of."""


class ExpertParallel:
    """An implementation of expert parallelism around Mixtral's experts module, on one rank."""

    wraps = "transformers"

    def __init__(self, implementation: str, function: str, device: str = "cpu") -> None:
        at = "" if function == "eager" else f"@{function}"
        self.name, self.device = f"ep:{implementation}{at}", device
        self._implementation, self._function = implementation, function
        self._model, found = MODELS[USUAL], IMPLEMENTATIONS[implementation]
        step = FUNCTIONS[function]
        self._computes = replace(
            self._model.computes,
            absent=found.absent,
            hidden_multiple_of=step,
            width_multiple_of=step,
        )
        shards = Shards(placements="even", replicas=False, batches=found.batches)
        self._capabilities = Capabilities(computes=self._computes, shards=shards)
        self._meshes: tuple[Any, Any] | None = None

    def capabilities(self) -> Capabilities:
        """Claim blocks of experts in order, as many on each rank."""
        return self._capabilities

    def preload(self) -> None:
        """Import transformers once, before there are ranks. Errors: ``BackendMissing``."""
        transformers_module("distributed.expert_parallel")
        transformers_module("models.mixtral.modeling_mixtral")
        transformers_module("models.auto.configuration_auto")

    def on_rank(
        self, config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
    ) -> Tensor:
        """Run this rank's module through the implementation. Errors: ``Unsupported``."""
        self._computes.require(config, inputs)
        self._held = placement.local(rank)
        module: Any = self._model.build(
            *own_experts(config, inputs, placement, rank), device=self.device
        )
        module.config._experts_implementation = self._function
        module._is_expert_parallel = True  # as its parameters' style sets it
        parallel: Any = transformers_module("distributed.expert_parallel")
        made = parallel.EPImplementationInterface()[self._implementation]
        run = without_graph(made(module, *self._mesh()))
        output: Tensor = run(*routed_tensors(inputs, self.device, weights=inputs.dtype))
        return output

    rank_gradients = torch_rank_gradients

    def unpacked(self, inputs: ExpertsInputs, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return gradients by the names of ``inputs``, in arrays of all experts."""
        return spread(self._model.unpacked(inputs, found), self._held, inputs.num_experts)

    def _mesh(self) -> tuple[Any, Any]:
        if self._meshes is None:
            together = IMPLEMENTATIONS[self._implementation].batches == "shared"
            self._meshes = _meshes(self.device.partition(":")[0], together)
        return self._meshes


def _meshes(kind: str, together: bool) -> tuple[Any, Any]:
    """Return the meshes of expert and tensor parallelism: one group, or each rank alone."""
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh

    if together:
        mesh = init_device_mesh(kind, (get_world_size(),), mesh_dim_names=("ep",))
        return mesh, mesh
    both = init_device_mesh(kind, (get_world_size(), 1), mesh_dim_names=("ep", "tp"))
    return both["ep"], both["tp"]

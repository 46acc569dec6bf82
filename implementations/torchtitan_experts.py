"""torchtitan's experts: the module in its MoE layers that dispatches, runs and combines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.computes import Computes
from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.tensors import parameter, torch_tensor, without_graph
from moe_routing.implementations.torch_expert_gradients import torch_expert_gradients
from moe_routing.implementations.torchtitan_modules import counts_of, module
from moe_routing.reference import ExpertsConfig, ExpertsInputs

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

COMPUTES = Computes(
    activations=("silu",),
    gated=(True,),
    biases=(False,),
    weight_on=("output",),
    absent=(False,),
    repeats=(False,),
    hidden_multiple_of=8,
    width_multiple_of=8,
)
"""What the module computes."""

_CAPABILITIES = Capabilities(computes=COMPUTES, dtypes=("bfloat16",))
_WEIGHTS = {"w1_EFD": "gate_weight", "w2_EDF": "down_weight", "w3_EFD": "up_weight"}


class TorchtitanExperts(OnDevice):
    """``RoutedExperts`` with the local dispatcher.

    It multiplies in bfloat16 whatever it is given, so that only that is claimed, in rows of a
    multiple of 16 bytes, as ``torch._grouped_mm`` wants them.
    """

    name = "torchtitan-experts"
    wraps = "torchtitan"
    claimed = _CAPABILITIES

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Run the module for one sequence. Errors: ``Unsupported``, ``BackendMissing``."""
        COMPUTES.require(config, inputs)
        routed = self._module(inputs)
        hidden, ids, weights = (
            torch_tensor(name, array, dtype=dtype, device=self.device)
            for name, array, dtype in (
                ("hidden", inputs.hidden, inputs.dtype),
                ("expert_ids", inputs.expert_ids, "int64"),
                ("weights", inputs.weights, "float32"),
            )
        )
        ids = ids.contiguous()  # as a router's ids are
        counts = counts_of(ids, config.num_experts)
        output: Tensor = without_graph(routed)(hidden[None], weights[None], ids[None], counts)
        return output[0]

    expert_gradients = torch_expert_gradients

    def _module(self, inputs: ExpertsInputs) -> Module:
        """Build the module for one rank alone."""
        dispatchers = module("models.common.token_dispatcher")
        settings = dispatchers.LocalTokenDispatcher.Config(
            top_k=inputs.top_k, num_experts=inputs.num_experts
        )
        return routed_experts(inputs, settings, self.device)


def routed_experts(inputs: ExpertsInputs, dispatcher: Any, device: str) -> Module:
    """Build the module around the case's weights, with a dispatcher of these settings."""
    import torch

    moe: Any = module("models.common.moe")
    module("distributed.utils").set_spmd_backend("default")
    sizes = {"dim": inputs.hidden_size, "hidden_dim": inputs.width}
    with torch.device("meta"):
        routed: Module = moe.RoutedExperts.Config(
            inner_experts=moe.GroupedExperts.Config(**sizes, num_experts=inputs.num_experts),
            token_dispatcher=dispatcher,
        ).build()
    inner = routed.get_submodule("inner_experts")
    for name, source in _WEIGHTS.items():
        array = inputs.arrays()[source]
        tensor = torch_tensor(source, array, dtype=inputs.dtype, device=device)
        setattr(inner, name, parameter(source, tensor))
    return routed

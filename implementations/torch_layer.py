"""A layer in eager PyTorch: its routed experts, and the shared expert that is added to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_routing.implementations.on_device import OnDevice
from moe_routing.implementations.tensors import torch_layer_inputs, torch_shared_inputs
from moe_routing.implementations.torch_experts import run_experts
from moe_routing.implementations.torch_route import route
from moe_routing.reference import (
    LayerConfig,
    LayerInputs,
    LayerResult,
    SharedExpertConfig,
    SharedExpertInputs,
    check_inputs,
)

if TYPE_CHECKING:
    from torch import Tensor


class EagerLayer(OnDevice):
    """A whole layer, and its shared expert alone."""

    def shared_experts(
        self, config: SharedExpertConfig, inputs: SharedExpertInputs
    ) -> Tensor | None:
        """Return the shared expert's output, gated where the configuration says so."""
        import torch

        if config.kind == "none":
            return None
        given = torch_shared_inputs(inputs, self.device)
        with torch.no_grad():
            return _shared_output(config, given["hidden"], given)

    def layer(self, config: LayerConfig, inputs: LayerInputs) -> LayerResult:
        """Route, run the chosen experts, and add the shared expert. Errors: ``ValueError``."""
        import torch

        check_inputs(config.router, inputs)
        given = torch_layer_inputs(inputs, self.device)
        hidden = given.router.hidden
        with torch.no_grad():
            routing = route(config.router, given.router)
            routes = {"hidden": hidden, "expert_ids": routing.expert_ids}
            weights = routing.weights.to(hidden.dtype)
            output = run_experts(config.experts, {**routes, **given.experts, "weights": weights})
            shared = _shared_output(config.shared, hidden, given.shared)
            return LayerResult(
                output=output if shared is None else output + shared, routing=routing
            )


def _shared_output(
    config: SharedExpertConfig, hidden: Tensor, weights: dict[str, Tensor]
) -> Tensor | None:
    """Return what the shared expert adds to a layer, or None where there is none."""
    from torch.nn import functional as F

    if config.kind == "none":
        return None
    output = swiglu(hidden, weights)
    return F.linear(hidden, weights["gate"]).sigmoid() * output if config.gated else output


def swiglu(hidden: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Return ``down(silu(gate_proj x) * up_proj x)``, shape ``[T, H]``."""
    from torch.nn import functional as F

    gate = F.silu(F.linear(hidden, weights["gate_proj"]))
    return F.linear(gate * F.linear(hidden, weights["up_proj"]), weights["down_proj"])

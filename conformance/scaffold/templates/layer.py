"""my-router, checked against the specification of MoE routing.

moe-routing check my_router.py:MyRouterAdapter --known known/my-router.toml
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_routing.implementations import Capabilities, Claim, Composes, Computes, torch_layer_inputs
from moe_routing.reference import LayerConfig, LayerInputs, LayerResult, Renormalize, Routing

if TYPE_CHECKING:
    from torch import Tensor


# ---- Your layer: replace these functions with an import of yours. ----
def swiglu(rows: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Run one expert on rows, ``[n, H]``."""
    import torch

    return torch.nn.functional.silu(rows @ gate.T) * (rows @ up.T) @ down.T


def softmax_topk(hidden: Tensor, gate_weight: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return the weights and the experts of every token, ``[T, K]`` each."""
    scores = (hidden.float() @ gate_weight.float().T).softmax(dim=-1)
    weights, expert_ids = scores.topk(top_k, dim=-1)
    return weights / weights.sum(dim=-1, keepdim=True), expert_ids


def moe_layer(
    hidden: Tensor,
    routed: tuple[Tensor, Tensor],
    experts: tuple[Tensor, Tensor, Tensor],
    shared: tuple[Tensor, Tensor, Tensor] | None,
) -> Tensor:
    """Return the weighted sum of the chosen experts, and the shared one once, ``[T, H]``."""
    (weights, expert_ids), output = routed, hidden.new_zeros(hidden.shape)
    for expert, matrices in enumerate(zip(*experts, strict=True)):
        tokens, slots = (expert_ids == expert).nonzero(as_tuple=True)
        weight = weights[tokens, slots, None].to(hidden.dtype)
        output.index_add_(0, tokens, swiglu(hidden[tokens], *matrices) * weight)
    return output if shared is None else output + swiglu(hidden, *shared)


# ---- Your layer ends here. ----

# What your layer does: its router, its experts, and its shared expert. What is not named is
# claimed whole; `Composes(shared=("none",))` is a layer without a shared expert.
CAPABILITIES = Capabilities(
    claims=(Claim.plain(renormalize=(Renormalize(),)),),
    computes=Computes(
        activations=("silu",),
        gated=(True,),
        biases=(False,),
        weight_on=("output",),
        absent=(False,),
    ),
    composes=Composes(shared=("none", "singular"), gated=(False,)),
)


class MyRouterAdapter:
    """How the suite calls the layer: a name, what is claimed, and the call."""

    name = "my-router"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device  # `--device cuda` arrives here

    def capabilities(self) -> Capabilities:
        """Return what is claimed: this must work, and everything else must be refused."""
        return CAPABILITIES

    def layer(self, config: LayerConfig, inputs: LayerInputs) -> LayerResult:
        """Call the layer, and return its own tensors as they are."""
        CAPABILITIES.require_layer(config, inputs)  # raises Unsupported for what is not claimed
        given = torch_layer_inputs(inputs, self.device)
        hidden, x, y = given.router.hidden, given.experts, given.shared
        routed = softmax_topk(hidden, given.router.gate_weight, config.router.top_k)
        experts = (x["gate_weight"], x["up_weight"], x["down_weight"])
        shared = (y["gate_proj"], y["up_proj"], y["down_proj"]) if y else None
        output = moe_layer(hidden, routed, experts, shared)
        return LayerResult(output=output, routing=Routing(weights=routed[0], expert_ids=routed[1]))

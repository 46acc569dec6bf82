"""my-router, checked against the specification of MoE routing.

moe-routing check my_router.py:MyRouterAdapter --known known/my-router.toml
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_routing.implementations import Capabilities, Claim, torch_inputs
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, Routing

if TYPE_CHECKING:
    from torch import Tensor


# ---- Your router: replace this function with an import of it. ----
def softmax_topk(hidden: Tensor, gate_weight: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return the weights and the experts of every token, ``[T, K]`` each."""
    scores = (hidden.float() @ gate_weight.float().T).softmax(dim=-1)
    weights, expert_ids = scores.topk(top_k, dim=-1)
    return weights / weights.sum(dim=-1, keepdim=True), expert_ids


# ---- Your router ends here. ----

# What your router does. `Claim.plain` is the plain softmax router; name every axis in which
# yours does something else, or more: score=("sigmoid",), selection_bias=("gate",), scale=ANY.
CLAIM = Claim.plain(renormalize=(Renormalize(),))


class MyRouterAdapter:
    """How the suite calls the router: a name, what is claimed, and the call."""

    name = "my-router"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device  # `--device cuda` arrives here

    def capabilities(self) -> Capabilities:
        """Return what is claimed: this must work, and everything else must be refused."""
        return Capabilities(claims=(CLAIM,))

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Call the router, and return its own tensors as they are."""
        self.capabilities().require(config, inputs)  # raises Unsupported for what is not claimed
        given = torch_inputs(inputs, self.device)
        weights, expert_ids = softmax_topk(given.hidden, given.gate_weight, config.top_k)
        return Routing(weights=weights, expert_ids=expert_ids)

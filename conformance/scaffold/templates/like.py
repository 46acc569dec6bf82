"""my-router, checked against the router of PRESET.

moe-routing check my_router.py:MyRouterAdapter --known known/my-router.toml
"""

from __future__ import annotations

from moe_routing.implementations import Capabilities, Claim, torch_inputs
from moe_routing.reference import RouterConfig, RouterInputs, Routing, route

# What the model needs, and nothing else. Name an axis to claim more or less of it:
# scale=ANY, top_k=range(1, 9).
CLAIM = Claim.of_preset("PRESET")


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
        # ---- Your router: replace the stand-in, the reference, by a call of yours. ----
        # The call has these tensors and settings:
        # CALL
        del given
        routed = route(RouterConfig(**vars(config)), inputs)
        # ---- Your router ends here. ----
        return Routing(weights=routed.weights, expert_ids=routed.expert_ids)

"""torchtitan's router: the module that its MoE layers build, run as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.on_device import PreparedRouter
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.tensors import (
    TorchInputs,
    parameter,
    torch_inputs,
    without_graph,
)
from moe_routing.implementations.torch_replay import torch_replay
from moe_routing.implementations.torchtitan_modules import module
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, Routing

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

CLAIMS = (
    Claim.plain(
        score=("softmax", "sigmoid"),
        groups=(None, GroupRule(top=(2,), fill=(-math.inf,))),
        renormalize=(None, Renormalize(eps=1e-20)),
        scale=ANY,
        selection_bias=("none", "block"),
        gate_bias=(False, True),
    ),
    # Qwen3 adds nothing to the norm. A softmax's K best sum to 1 / E at least, so the 1e-20 that
    # is always added changes no bit; with a sigmoid only DeepSeek-V3 is renormalised.
    Claim.plain(renormalize=(Renormalize(),)),
)
"""What the module's settings offer."""


class TorchtitanRouter(PreparedRouter[Routing]):
    """``TokenChoiceTopKRouter``, given the bias that the MoE layer around it keeps."""

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Routing]:
        """Build the module for one sequence. Errors: as ``route``."""
        self.capabilities().require(config, inputs)
        moe = module("models.common.moe")
        given = torch_inputs(inputs, self.device)
        router = _router(moe, config, given)
        heard: dict[str, Tensor] = {}
        gate = router.get_submodule("gate")
        gate.register_forward_hook(lambda *call: heard.update(logits=call[2][0]))

        @without_graph
        def routed() -> Routing:
            weights, ids, _ = router(given.hidden[None], given.selection_bias)
            return Routing(weights=weights[0], expert_ids=ids[0], **heard)

        return routed

    replay = torch_replay


def _router(moe: Any, config: RouterConfig, given: TorchInputs) -> Module:
    """Build the router around the case's gate, with the case's settings."""
    groups, (experts, hidden) = config.groups, given.gate_weight.shape
    router: Module = moe.TokenChoiceTopKRouter.Config(
        num_experts=config.num_experts,
        gate=moe.Linear.Config(in_features=hidden, out_features=experts),
        num_expert_groups=groups and groups.count,
        num_limited_groups=groups and groups.kept,
        top_k=config.top_k,
        score_func=config.score,
        route_norm=config.renormalize is not None,
        route_scale=config.scale,
    ).build()
    gate = router.get_submodule("gate")
    gate.weight = parameter("gate_weight", given.gate_weight)
    if given.gate_bias is not None:
        gate.bias = parameter("gate_bias", given.gate_bias)
    return router

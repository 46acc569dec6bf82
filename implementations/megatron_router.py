"""Megatron-Core's routing function, called as it is with given logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.layouts import RoutingMap
from moe_routing.implementations.megatron_modules import moe_utils
from moe_routing.implementations.megatron_replay import replaying
from moe_routing.implementations.on_device import PreparedRouter
from moe_routing.implementations.permitted import POSITIVE
from moe_routing.implementations.tensors import torch_inputs, without_graph
from moe_routing.reference import Recorded, Renormalize, RouterConfig, RouterInputs
from moe_routing.reference.config import LEAST_PRECISE

_NODES = GroupRule(top=("K // kept",), fill=(-math.inf,))
_DEVICES = GroupRule(top=("K // kept",), fill=(0.0,))

# ``if scaling_factor:`` takes a factor of 0 for none.
_PRE = {"name": "pre", "scale": POSITIVE}
_SIGMOID: dict[str, Any] = {
    "name": "sigmoid",
    "score": ("sigmoid",),
    "groups": (None, _NODES),
    "selection_bias": ("none", "gate"),
    "renormalize": (FromTwo(Renormalize(eps=1e-20)),),
    "scale": POSITIVE,
}
_FAMILIES = (
    Claim.plain(groups=(None, _NODES), **_PRE),
    Claim.plain(groups=(_DEVICES,), weights_from=("masked_scores",), **_PRE),
    Claim.plain(
        name="post", score=("identity",), weights_from=("softmax_of_selected",), scale=POSITIVE
    ),
    Claim.plain(**_SIGMOID),
)
CLAIMS = tuple(
    replace(claim, scores_dtype=(dtype,), weights_dtype=(dtype,), gate_dtype=LEAST_PRECISE)
    for claim, dtype in product(_FAMILIES, ("float32", "input"))
)
"""What the families need; a claim's name picks the function's settings."""


class MegatronRouter(PreparedRouter[RoutingMap]):
    """``topk_routing_with_score_function``, and its replay."""

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], RoutingMap]:
        """Lay out the logits and spell the settings of a call. Errors: as ``route``."""
        return self._prepared(config, inputs, None)

    def _prepared(
        self, config: RouterConfig, inputs: RouterInputs, router_replay: Any
    ) -> Callable[[], RoutingMap]:
        settings = _settings(self.capabilities().require(config, inputs).name, config)
        function = moe_utils().topk_routing_with_score_function
        given = torch_inputs(inputs, self.device)
        logits = given.logits
        if logits is not None and config.scores_dtype == "float32":
            logits = logits.float()

        @without_graph
        def routed() -> RoutingMap:
            answer = function(
                logits,
                config.top_k,
                expert_bias=given.selection_bias,
                router_replay=router_replay,
                **settings,
            )
            return RoutingMap(probs=answer[0], routing_map=answer[1])

        return routed

    def replay(self, config: RouterConfig, inputs: RouterInputs, recorded: Recorded) -> RoutingMap:
        """Give every layer's ``RouterReplay`` its record, and route the one that is called.

        Errors: ``Unsupported``, ``BackendMissing``.
        """
        self.capabilities().replays.require(config, recorded)
        if recorded.layer is None:
            return self.route(config, inputs)
        with replaying(recorded, self.device) as router_replay:
            return self._prepared(config, inputs, router_replay)()


def _settings(name: str, config: RouterConfig) -> dict[str, Any]:
    """Return the function's settings for ``config`` under the claim of this ``name``."""
    groups = config.groups
    return {
        "use_pre_softmax": name == "pre",
        "num_groups": groups and groups.count,
        "group_topk": groups and groups.kept,
        "scaling_factor": config.scale,
        "score_function": "sigmoid" if name == "sigmoid" else "softmax",
    }

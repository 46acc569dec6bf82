"""Megatron-Core's routing function, called as it is with given logits."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from types import ModuleType
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.balances import Balance
from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.drops import Drops
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.layouts import RoutingMap
from moe_routing.implementations.megatron_experts import (
    COMPUTES,
    maps_of,
    sequential_mlp,
    unpacked_mlps,
)
from moe_routing.implementations.megatron_losses import BALANCES, losses
from moe_routing.implementations.megatron_replay import REPLAYS, replaying
from moe_routing.implementations.permitted import POSITIVE
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.protocol import missing
from moe_routing.implementations.tensors import torch_inputs, torch_tensor, without_graph
from moe_routing.implementations.torch_expert_gradients import torch_expert_gradients
from moe_routing.implementations.torch_gradients import torch_gradients
from moe_routing.reference import (
    BalanceConfig,
    BalanceInputs,
    CapacityConfig,
    ExpertsConfig,
    ExpertsInputs,
    PermutationConfig,
    Recorded,
    Renormalize,
    RouterConfig,
    RouterInputs,
    Routes,
    SortedTokens,
)
from moe_routing.reference.config import LEAST_PRECISE

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "python -m pip install megatron-core==0.16.1 tqdm"
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
_CLAIMS = (
    Claim.plain(groups=(None, _NODES), **_PRE),
    Claim.plain(groups=(_DEVICES,), weights_from=("masked_scores",), **_PRE),
    Claim.plain(
        name="post", score=("identity",), weights_from=("softmax_of_selected",), scale=POSITIVE
    ),
    Claim.plain(**_SIGMOID),
)
_PERMUTES = Permutes(align=(1,), empty_takes=("nothing",), repeats=(False,))
# Of no minimum: ``get_capacity`` has one, but what calls it gives none.
_DROPS = Drops(
    share=("routes",),
    rounding=("up",),
    minimum=(0,),
    zero=("nothing",),
    order=("token", "weight"),
    survivors=("kept",),
)
_POLICIES = {"token": "position", "weight": "probs"}
_CAPABILITIES = Capabilities(
    permutes=_PERMUTES,
    replays=REPLAYS,
    drops=_DROPS,
    balances=BALANCES,
    computes=COMPUTES,
    claims=tuple(
        replace(claim, scores_dtype=(dtype,), weights_dtype=(dtype,), gate_dtype=LEAST_PRECISE)
        for claim, dtype in product(_CLAIMS, ("float32", "input"))
    ),
    takes="logits",
)


class MegatronCoreAdapter:
    """``topk_routing_with_score_function``: the whole router but for its gate.

    The gate (``TopKRouter.gating``) moves its weights to a GPU. Scores and weights are in the
    dtype that it gives the logits: the input's, or float32 by ``--moe-router-dtype fp32``.
    Claimed are softmax before and after top-k (Qwen, Mixtral), softmax limited to devices
    (DeepSeek-V2), and sigmoid limited to nodes (DeepSeek-V3), normalised from K = 2 on
    (Llama 4 has K = 1).
    """

    name = "megatron-core"
    wraps = "megatron-core"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def capabilities(self) -> Capabilities:
        """Claim what the families need; the claim's name picks the function's settings."""
        return _CAPABILITIES

    def route(self, config: RouterConfig, inputs: RouterInputs) -> RoutingMap:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        return self.prepare(config, inputs)()

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], RoutingMap]:
        """Lay out the logits and spell the settings of a call. Errors: as ``route``."""
        return self._prepared(config, inputs, None)

    def _prepared(
        self, config: RouterConfig, inputs: RouterInputs, router_replay: Any
    ) -> Callable[[], RoutingMap]:
        settings = _settings(self.capabilities().require(config, inputs).name, config)
        function = _moe_utils().topk_routing_with_score_function
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

    gradients = torch_gradients

    def replay(self, config: RouterConfig, inputs: RouterInputs, recorded: Recorded) -> RoutingMap:
        """Give every layer's ``RouterReplay`` its record, and route the one that is called.

        Errors: ``Unsupported``, ``BackendMissing``.
        """
        self.capabilities().replays.require(config, recorded)
        if recorded.layer is None:
            return self.route(config, inputs)
        with replaying(recorded, self.device) as router_replay:
            return self._prepared(config, inputs, router_replay)()

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedTokens:
        """Call ``permute`` with a routing map. Errors: ``Unsupported``, ``BackendMissing``."""
        _PERMUTES.require(config, routes)
        utils = _moe_utils()
        probs, routing_map = maps_of(routes, config.num_experts, self.device)
        tokens = probs.new_zeros((routes.num_tokens, 1))
        _, permuted, order = utils.permute(tokens, routing_map, probs)
        return SortedTokens(tokens=order, counts=routing_map.sum(dim=0), weights=permuted)

    def drop(self, config: CapacityConfig, routes: Routes) -> RoutingMap:
        """Call ``apply_router_token_dropping``. Errors: as ``permute``."""
        _DROPS.require(config, routes)
        probs, routing_map = _moe_utils().apply_router_token_dropping(
            *maps_of(routes, config.num_experts, self.device),
            router_topk=routes.top_k,
            capacity_factor=config.factor,
            drop_policy=_POLICIES[config.order],
        )
        return RoutingMap(probs=probs, routing_map=routing_map)

    def balance(self, config: BalanceConfig, inputs: BalanceInputs) -> Balance:
        """Call the auxiliary loss and the z-loss. Errors: as ``permute``."""
        BALANCES.require(config, inputs)
        return losses(_moe_utils(), config, inputs, self.device)

    def experts(self, config: ExpertsConfig, inputs: ExpertsInputs) -> Tensor:
        """Permute, run the experts one by one, unpermute. Errors: as ``permute``."""
        COMPUTES.require(config, inputs)
        utils, experts = _moe_utils(), sequential_mlp(config, inputs, self.device)
        probs, routing_map = maps_of(inputs.routes, config.num_experts, self.device)
        hidden = torch_tensor("hidden", inputs.hidden, dtype=inputs.dtype, device=self.device)

        @without_graph
        def combined() -> Tensor:
            tokens, permuted, order = utils.permute(hidden, routing_map, probs)
            output, _ = experts(tokens, routing_map.sum(dim=0), permuted)
            made: Tensor = utils.unpermute(output, order, hidden.shape)
            return made

        return combined()

    expert_gradients = torch_expert_gradients

    def unpacked(self, inputs: ExpertsInputs, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return gradients by the names of ``inputs``, from those of each expert's layers."""
        return unpacked_mlps(inputs, found)


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


def _moe_utils() -> ModuleType:
    return core_module("transformer.moe.moe_utils")


def core_module(name: str) -> ModuleType:
    """Import a module of Megatron-Core. Errors: ``BackendMissing``."""
    try:
        return importlib.import_module(f"megatron.core.{name}")
    except ModuleNotFoundError as error:
        raise missing("megatron-core", "megatron", error, INSTALL) from error

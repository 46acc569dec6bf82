"""DeepSpeed, one adapter a function: the gate, what it drops, AutoEP's router and permutation.

Each adapter is an attribute of this module: a class.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from moe_routing.implementations.capabilities import Capabilities, Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.deepspeed_drops import Top1Drop, Top2Drop, TopKDrop
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.on_device import OnDevice, PreparedRouter
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.permutes import Permutes
from moe_routing.implementations.protocol import missing
from moe_routing.implementations.tensors import (
    parameter,
    torch_inputs,
    torch_tensor,
    without_graph,
)
from moe_routing.implementations.torch_replay import FORCED, torch_replay
from moe_routing.reference import (
    PermutationConfig,
    Renormalize,
    RouterConfig,
    RouterInputs,
    Routes,
    Routing,
    SortedRoutes,
)
from moe_routing.reference.permutation import PADDING

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "python -m pip install deepspeed==0.19.8"
_FLOAT32_EPS = 2.0**-23
_NOTHING_BY_CHANCE = {
    "drop_tokens": False,
    "min_capacity": 0,
    "use_rts": False,
    "top2_2nd_expert_sampling": False,
}
_GATE = (Claim.plain(renormalize=(FromTwo(Renormalize(floor=_FLOAT32_EPS)),)),)
_EP_ROUTER = (
    Claim.plain(
        score=("softmax", "sigmoid"),
        groups=(None, GroupRule(top=(1, 2), fill=(-math.inf,))),
        renormalize=(None, Renormalize(eps=1e-20)),
        scale=ANY,
        selection_bias=("none", "gate", "block"),
        gate_bias=(False, True),
        logits_dtype=("float32", "input"),
    ),
    Claim.plain(
        weights_from=("masked_scores",),
        groups=(GroupRule(top=(1,), fill=(0.0,)),),
        scale=ANY,
    ),
    # Mixtral and Qwen add nothing to the norm. A softmax's K best sum to 1 / E at least, so the
    # 1e-20 that AutoEP always adds changes no bit.
    Claim.plain(renormalize=(Renormalize(),), logits_dtype=("input",)),
    # Nor does MiniMax-M3, whose sigmoids can all be tiny: there the 1e-20 shows.
    Claim.plain(
        score=("sigmoid",),
        renormalize=(Renormalize(),),
        scale=ANY,
        selection_bias=("gate",),
        logits_dtype=("input",),
    ),
)

_PAIRS = Limits(min_group_size=2)
"""It refuses groups of fewer than the two that "top2_sum" adds up."""

_RANKS = 2
_PERMUTES = Permutes(empty_takes=("align",), absent=(False,))

MEMBERS = ("topk_gate", "ep_router", "permute_indices", "top1_drop", "top2_drop", "topk_drop")
"""The names of the adapters, after ``deepspeed:``."""

OUT_OF_SCOPE = {
    "top2_sampling": "it takes the second expert by chance (``top2_2nd_expert_sampling``, on by "
    "default); topk_gate has it off",
    "drop_tokens": "tokens beyond an expert's capacity lose it, whatever their scores say: "
    "topk_gate keeps all, and top1_drop, top2_drop and topk_drop are the functions that drop",
    "ragged_top_k_gating": "a CUDA kernel of its inference engine, compiled on first use for "
    "the GPU at hand",
}
"""Why some other routers have no adapter, by the name that it would have."""


class TopKGate(PreparedRouter[Routing]):
    """``TopKGate``, which calls ``top1gating``, ``top2gating`` or ``topkgating`` by K.

    Without what makes an answer depend on chance or on other tokens: no sampling of the second
    expert, no jitter, no capacity. One expert keeps its probability; more are renormalised.
    """

    name = "deepspeed:topk_gate"
    wraps = "deepspeed"
    claimed = Capabilities(claims=_GATE)

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Routing]:
        """Build the gate. Errors: ``Unsupported``, ``BackendMissing``."""
        self.capabilities().require(config, inputs)
        sharded_moe = _module("sharded_moe")
        import torch

        given, settings = torch_inputs(inputs, self.device), (config.num_experts, config.top_k)
        with torch.device("meta"):
            gate = sharded_moe.TopKGate(inputs.hidden_size, *settings, **_NOTHING_BY_CHANCE)
        _fill(gate.wg, weight=given.gate_weight)

        @without_graph
        def routed() -> Routing:
            _, _, _, ids, _, weights, _ = gate(given.hidden, sparse_routes=True)  # [K, T]
            return Routing(weights=weights.T.contiguous(), expert_ids=ids.T.contiguous())

        return routed


class EpRouter(PreparedRouter[Routing]):
    """``TokenChoiceTopKRouter`` of AutoEP, which replaces a model's own router by it.

    It claims what the models with a preset of AutoEP need: DeepSeek-V2 and V3, Mixtral, Qwen2 to
    Qwen3.5 and MiniMax-M3.
    A bias on the gate is ``e_score_correction_bias``, one on the block the ``expert_bias``
    that balances load.
    """

    name = "deepspeed:ep_router"
    wraps = "deepspeed"
    claimed = Capabilities(claims=_EP_ROUTER, logits="routed", replays=FORCED, limits=_PAIRS)

    def prepare(self, config: RouterConfig, inputs: RouterInputs) -> Callable[[], Routing]:
        """Build the module. Errors: ``Unsupported``, ``BackendMissing``."""
        self.capabilities().require(config, inputs)
        ep_router = _module("ep_router")
        import torch

        given = torch_inputs(inputs, self.device)
        heard: dict[str, Tensor] = {}
        with torch.device("meta"):
            router = ep_router.TokenChoiceTopKRouter(**_settings(config, inputs))
        _fill(router.gate, weight=given.gate_weight, bias=given.gate_bias)
        router.gate.register_forward_hook(lambda *call: heard.update(logits=call[2]))
        on_gate = inputs.selection_bias_on == "gate"
        router.e_score_correction_bias = given.selection_bias if on_gate else None
        expert_bias = None if on_gate else given.selection_bias

        @without_graph
        def routed() -> Routing:
            weights, ids, _ = router(given.hidden, expert_bias)
            return Routing(weights=weights, expert_ids=ids, **heard)

        return routed

    replay = torch_replay


class PermuteIndices(OnDevice):
    """``generate_permute_indices``, given what two ranks have sent.

    AutoEP sorts the routes of each rank by expert, exchanges them, and calls it with the counts
    of all: its indices lead into the buffer that was received, rank by rank.
    """

    name = "deepspeed:permute_indices"
    wraps = "deepspeed"
    claimed = Capabilities(permutes=_PERMUTES)

    def permute(self, config: PermutationConfig, routes: Routes) -> SortedRoutes:
        """Call the function. Errors: ``Unsupported``, ``BackendMissing``."""
        _PERMUTES.require(config, routes)
        kernels = _module("ep_kernels")
        import torch

        experts, align = config.num_experts, config.align
        ids = torch_tensor("expert_ids", routes.expert_ids, dtype="int64", device=self.device)
        first, second = ids.flatten().tensor_split([ids.shape[0] // _RANKS * ids.shape[1]])
        received = torch.cat(
            [first.argsort(stable=True), second.argsort(stable=True) + first.numel()]
        )
        counts = torch.cat([sent.bincount(minlength=experts) for sent in (first, second)])
        # The length of AutoEP's buffer (``permute_by_local_expert``).
        longest = -(-(ids.numel() + experts * align) // align) * align
        indices, _, ends = kernels.generate_permute_indices(
            counts, experts, _RANKS, longest, align, use_cpu=self.device == "cpu"
        )
        indices = indices[: int(ends[-1])]
        inverse = torch.empty_like(received)
        inverse[received] = kernels.inverse_permutation(indices, ids.numel())
        named = torch.cat([received, received.new_full((1,), PADDING)])  # -1 leads to -1
        return SortedRoutes(
            routes=named[indices.long()], ends=ends, inverse=inverse.reshape(ids.shape)
        )


topk_gate, ep_router, permute_indices = TopKGate, EpRouter, PermuteIndices
top1_drop, top2_drop, topk_drop = Top1Drop, Top2Drop, TopKDrop


def _settings(config: RouterConfig, inputs: RouterInputs) -> dict[str, Any]:
    """Return the settings of AutoEP's router for ``config``."""
    groups = config.groups
    return {
        "dim": inputs.hidden_size,
        "num_experts": config.num_experts,
        "num_expert_groups": groups and groups.count,
        "num_limited_groups": groups and groups.kept,
        "top_k": config.top_k,
        "score_func": config.score,
        "route_norm": config.renormalize is not None,
        "route_scale": config.scale,
        "gate_bias": inputs.gate_bias is not None,
        "group_score_func": "max" if groups and groups.top == 1 else "top2_sum",
    }


def _fill(linear: Any, **tensors: Tensor | None) -> None:
    """Replace a layer's parameters by the case's tensors."""
    for name, tensor in tensors.items():
        if tensor is not None:
            setattr(linear, name, parameter(f"gate_{name}", tensor))


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"deepspeed.moe.{name}")
    except ModuleNotFoundError as error:
        raise missing("deepspeed", "deepspeed", error, INSTALL) from error

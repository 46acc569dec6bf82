"""DeepSpeed's two routers, one adapter each: the GShard gate, and the router of AutoEP.

Each adapter is an attribute of this module: a class.
"""

from __future__ import annotations

import importlib
import math
import sys
from types import ModuleType

from moe_routing.implementations.capabilities import ANY, Capabilities, Claim, GroupRule
from moe_routing.implementations.protocol import BackendMissing
from moe_routing.implementations.tensors import torch_inputs
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs, Routing

INSTALL = (
    "DS_BUILD_OPS=0 python -m pip install --no-deps --no-build-isolation deepspeed==0.19.8 "
    "hjson msgpack ninja einops py-cpuinfo psutil tqdm pydantic"
)
_FLOAT32_EPS = 2.0**-23
_GATE = (
    Claim.plain(top_k=(1,)),
    Claim.plain(top_k=range(2, sys.maxsize), renormalize=(Renormalize(floor=_FLOAT32_EPS),)),
)
_DEEPSEEK_V2 = Claim.plain(
    weights_from=("masked_scores",),
    groups=(GroupRule(top=(1,), fill=(0.0,)),),
    scale=ANY,
    logits_dtype=("input",),
)
_EP_ROUTER = Claim.plain(
    score=("softmax", "sigmoid"),
    groups=(None, GroupRule(top=(1, 2), fill=(-math.inf,))),
    renormalize=(None, Renormalize(eps=1e-20)),
    scale=ANY,
    selection_bias=("none", "gate", "block"),
    gate_bias=(False, True),
    logits_dtype=("input",),
)

MEMBERS = ("topk_gate", "ep_router")
"""The names of the adapters, after ``deepspeed:``."""

OUT_OF_SCOPE = {
    "top2_sampling": "it takes the second expert by chance (``top2_2nd_expert_sampling``, on by "
    "default); topk_gate has it off",
    "drop_tokens": "tokens beyond an expert's capacity lose it, whatever their scores say; "
    "topk_gate keeps all",
    "ragged_top_k_gating": "a CUDA kernel of its inference engine, compiled on first use for "
    "the GPU at hand",
}
"""Why some others have none, by the name that they would have."""


class TopKGate:
    """``TopKGate``, which calls ``top1gating``, ``top2gating`` or ``topkgating`` by K.

    Without what makes an answer depend on chance or on other tokens: no sampling of the second
    expert, no jitter, no capacity. One expert keeps its probability; more are renormalised.
    """

    name = "deepspeed:topk_gate"
    wraps = "deepspeed"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._capabilities = Capabilities(claims=_GATE)

    def capabilities(self) -> Capabilities:
        """Claim a softmax in float32, as GShard and Mixtral have it."""
        return self._capabilities

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Build and run the gate. Errors: ``Unsupported``, ``BackendMissing``."""
        self.capabilities().require(config, inputs)
        sharded_moe = _module("sharded_moe")
        import torch

        given = torch_inputs(inputs, self.device)
        with torch.no_grad(), torch.device("meta"):
            gate = sharded_moe.TopKGate(
                inputs.hidden_size,
                config.num_experts,
                config.top_k,
                min_capacity=0,
                drop_tokens=False,
                use_rts=False,
                top2_2nd_expert_sampling=False,
            )
        with torch.no_grad():
            gate.wg.weight = torch.nn.Parameter(given.gate_weight, requires_grad=False)
            _, _, _, experts, _, weights, _ = gate(given.hidden, sparse_routes=True)
        return Routing(weights=weights.T.contiguous(), expert_ids=experts.T.contiguous())


class EpRouter:
    """``TokenChoiceTopKRouter`` of AutoEP, which puts it in place of a model's own router.

    It began as torchtitan's; gate and scores differ in that the gate multiplies in the dtype
    of its input. A bias on the gate is ``e_score_correction_bias``, one on the block the
    ``expert_bias`` that balances load.
    """

    name = "deepspeed:ep_router"
    wraps = "deepspeed"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._capabilities = Capabilities(claims=(_EP_ROUTER, _DEEPSEEK_V2), logits="routed")

    def capabilities(self) -> Capabilities:
        """Claim what the module's settings offer."""
        return self._capabilities

    def route(self, config: RouterConfig, inputs: RouterInputs) -> Routing:
        """Build and run the module. Errors: ``Unsupported``, ``BackendMissing``."""
        self.capabilities().require(config, inputs)
        ep_router = _module("ep_router")
        import torch

        given, groups, logits = torch_inputs(inputs, self.device), config.groups, []
        with torch.device("meta"):
            router = ep_router.TokenChoiceTopKRouter(
                dim=inputs.hidden_size,
                num_experts=config.num_experts,
                num_expert_groups=groups and groups.count,
                num_limited_groups=groups and groups.kept,
                top_k=config.top_k,
                score_func=config.score,
                route_norm=config.renormalize is not None,
                route_scale=config.scale,
                gate_bias=given.gate_bias is not None,
                group_score_func="max" if groups and groups.top == 1 else "top2_sum",
            )
        for name, tensor in (("weight", given.gate_weight), ("bias", given.gate_bias)):
            if tensor is not None:
                setattr(router.gate, name, torch.nn.Parameter(tensor, requires_grad=False))
        on_gate = inputs.selection_bias_on == "gate"
        router.e_score_correction_bias = given.selection_bias if on_gate else None
        router.gate.register_forward_hook(lambda *heard: logits.append(heard[2]))
        with torch.no_grad():
            weights, ids, _ = router(given.hidden, None if on_gate else given.selection_bias)
        return Routing(weights=weights, expert_ids=ids, logits=logits[0])


topk_gate, ep_router = TopKGate, EpRouter


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"deepspeed.moe.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "deepspeed":
            raise BackendMissing(f"deepspeed is not installed: {INSTALL}") from error
        raise BackendMissing(f"deepspeed needs {error.name}, which is missing: {INSTALL}") from error

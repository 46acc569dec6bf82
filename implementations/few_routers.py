"""Routers of packages that have one: each called as it is, in a few lines."""

from __future__ import annotations

from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.probing import torch_routes
from moe_routing.implementations.promises import SORTED
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

_SMALL = Limits(max_experts=64, max_tokens=64)
_ALL_NARROW: dict[str, Any] = dict.fromkeys(
    ("logits_dtype", "scores_dtype", "weights_dtype"), ("input",)
)
SINGLE = {
    wraps: Family(name, wraps)
    for name, wraps in {
        "mistral-inference": "mistral-inference",
        "olmo-core": "ai2-olmo-core",
        "diffusers": "diffusers",
    }.items()
}
"""The packages that have one, by their distribution."""


@cache
def _module(package: str, name: str, *absent: str) -> ModuleType:
    install = f"python -m pip install --no-deps {package}"
    return lone_module(name, install=install, absent=absent)


def _linear(weight: Any) -> Any:
    from torch.nn import functional as F

    return lambda hidden: F.linear(hidden, weight)


@SINGLE["mistral-inference"].only(
    Claim.of_preset("mixtral", weights_dtype=("input",)), limits=_SMALL
)
def mistral_inference(config: RouterConfig, given: TorchInputs) -> Any:
    """``MoeLayer``, whose experts are probed: Mistral's own."""
    module = _module("mistral-inference", "mistral_inference.moe", "simple_parsing")
    said = SimpleNamespace(num_experts_per_tok=config.top_k)

    def run(experts: Any) -> Any:
        block = SimpleNamespace(experts=experts, gate=_linear(given.gate_weight), args=said)
        return module.MoeLayer.forward(block, given.hidden)

    return torch_routes(run, num_experts=config.num_experts, top_k=config.top_k)


_OLMO_PARTS = ("ops.moe", "config", "distributed.utils", "utils", "exceptions")


@cache
def _olmo() -> ModuleType:
    return lone_module(
        "olmo_core.nn.moe.router",
        install="python -m pip install --no-deps ai2-olmo-core",
        real=[f"olmo_core.{part}" for part in _OLMO_PARTS],
        absent=("cached_path", "omegaconf", "dataclass_extensions"),
    )


@SINGLE["ai2-olmo-core"].only(
    Claim.plain(
        renormalize=(None, Renormalize(), Renormalize(order=2.0)), selection_bias=("none", "gate")
    ),
    promises=SORTED,
)
def olmo_core(config: RouterConfig, given: TorchInputs) -> Routing:
    """``MoELinearRouter`` with a softmax: OLMoE; its sigmoid has 1e-7 added."""
    import torch

    module = _olmo()
    norm, biased = config.renormalize, given.selection_bias is not None
    router = module.MoELinearRouter(
        d_model=given.hidden.shape[1],
        num_experts=config.num_experts,
        top_k=config.top_k,
        normalize_expert_weights=None if norm is None else norm.order,
        bias_gamma=1.0 if biased else None,
    ).eval()
    router.weight.data = given.gate_weight.flatten()
    if biased:
        router.score_bias = given.selection_bias
    weights, ids, *_ = router(given.hidden[None])
    return Routing(weights=weights[0], expert_ids=ids[0].to(torch.int64))


@SINGLE["diffusers"].only(Claim.plain(**_ALL_NARROW))
def diffusers(config: RouterConfig, given: TorchInputs) -> Routing:
    """``MoEGate`` of HiDream-I1."""
    name = "diffusers.models.transformers.transformer_hidream_image"
    gate = SimpleNamespace(top_k=config.top_k, scoring_func="softmax", weight=given.gate_weight)
    gate.norm_topk_prob, gate.training = False, False
    ids, weights, _ = _module("diffusers", name).MoEGate.forward(gate, given.hidden[None])
    return Routing(weights=weights, expert_ids=ids)

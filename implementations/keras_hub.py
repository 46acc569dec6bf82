"""KerasHub's blocks, on the torch backend of Keras: their experts are probed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.probing import heard_topk, torch_routes
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = (
    "python -m pip install --no-deps keras-hub==0.32.0 && "
    "python -m pip install keras && export KERAS_BACKEND=torch"
)
FAMILY = Family("keras-hub", "keras-hub")

_NARROW: dict[str, Any] = dict.fromkeys(
    ("logits_dtype", "scores_dtype", "weights_dtype"), ("input",)
)
_SMALL = Limits(max_experts=64, max_tokens=64)


@cache
def _module(name: str) -> ModuleType:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return lone_module(f"keras_hub.src.models.{name}", install=INSTALL)


def _linear(given: TorchInputs) -> Callable[[Any], Any]:
    from torch.nn import functional as F

    return lambda hidden: F.linear(hidden, given.gate_weight, given.gate_bias)


def _block(name: str, config: RouterConfig, given: TorchInputs) -> Routing:
    """Run a block without its shared expert, with a bank of probing experts."""
    import torch

    sizes = {"hidden_dim": given.hidden.shape[1], "num_experts": config.num_experts}
    block = SimpleNamespace(**sizes, top_k=config.top_k)
    block.norm_top_k_prob = config.renormalize is not None
    block._sparse_feedforward_gate_dense = block._router_gate = _linear(given)
    block.shared_expert = block.shared_expert_dense = torch.zeros_like
    block._shared_expert_gate = block.shared_expert_gate_dense = lambda hidden: hidden[:, :1] * 0
    prefix = "Qwen3_5Moe" if name == "qwen3_5_moe" else name.removesuffix("_moe").capitalize()
    call = getattr(_module(f"{name}.{name}_decoder"), f"{prefix}SparseMoeBlock").call

    def run(experts: Any) -> Any:
        block.expert_bank = lambda hidden: torch.stack([each(hidden) for each in experts])
        return call(block, given.hidden[None])[0][0]

    return torch_routes(run, num_experts=config.num_experts, top_k=config.top_k)


@FAMILY.function(Claim.plain(renormalize=(Renormalize(),), **_NARROW), limits=_SMALL)
def mixtral(config: RouterConfig, given: TorchInputs) -> Routing:
    """``MixtralSparseMoeBlock``."""
    return _block("mixtral", config, given)


@FAMILY.function(Claim.plain(renormalize=(None, Renormalize()), **_NARROW), limits=_SMALL)
def qwen_moe(config: RouterConfig, given: TorchInputs) -> Routing:
    """``QwenSparseMoeBlock``: Qwen2-MoE."""
    return _block("qwen_moe", config, given)


@FAMILY.function(Claim.plain(renormalize=(None, Renormalize()), **_NARROW), limits=_SMALL)
def qwen3_moe(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Qwen3SparseMoeBlock``."""
    return _block("qwen3_moe", config, given)


@FAMILY.function(Claim.plain(renormalize=(Renormalize(),), **_NARROW), limits=_SMALL)
def qwen3_5_moe(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Qwen3_5MoeSparseMoeBlock``."""
    return _block("qwen3_5_moe", config, given)


@FAMILY.function(Claim.of_preset("gpt_oss"))
def gpt_oss(config: RouterConfig, given: TorchInputs) -> Routing:
    """``GptOssTopKRouter``."""
    router = SimpleNamespace(num_experts=config.num_experts, top_k=config.top_k)
    router.router_dense = _linear(given)
    with heard_topk(config.top_k) as heard:
        scores = _module("gpt_oss.gpt_oss_decoder").GptOssTopKRouter.call(router, given.hidden)
    ids = heard[-1]
    return Routing(weights=scores.gather(1, ids), expert_ids=ids)


@FAMILY.function(Claim.of_preset("gemma4_text", **_NARROW, per_expert_scale=(False,)))
def gemma4(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gemma4Router``, around its own norm; scales of experts are in the experts' bank."""
    norm, hidden = config.input_norm, given.hidden
    assert norm is not None, "claimed is a norm"
    vnorm = SimpleNamespace(epsilon=norm.eps, compute_dtype=str(hidden.dtype).split(".")[1])
    normed = _module("gemma4.gemma4_layers").Gemma4VNorm.call
    router = SimpleNamespace(num_experts=config.num_experts, proj=_linear(given))
    router.num_experts_per_token = config.top_k
    router.per_dim_scale = 1.0 if given.hidden_scale is None else given.hidden_scale
    router.rms_norm, router._scalar_root_size = partial(normed, vnorm), hidden.shape[1] ** -0.5
    with heard_topk(config.top_k) as heard:
        scores = _module("gemma4.gemma4_moe").Gemma4Router.call(router, hidden[None])
    return Routing(weights=scores.gather(1, heard[-1]), expert_ids=heard[-1])


MEMBERS = FAMILY.members
OUT_OF_SCOPE: dict[str, str] = {}

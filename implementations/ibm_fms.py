"""The block of IBM's foundation model stack, whose experts are probed."""

from __future__ import annotations

from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.claims import Claim
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.probing import stacked_routes
from moe_routing.implementations.promises import SORTED
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import RouterConfig, Routing

INSTALL = "python -m pip install --no-deps ibm-fms"
FAMILY = Family("ibm-fms", "ibm-fms")

_ALL_NARROW: dict[str, Any] = dict.fromkeys(
    ("logits_dtype", "scores_dtype", "weights_dtype"), ("input",)
)


@cache
def _module() -> ModuleType:
    return lone_module("fms.modules.feedforward", install=INSTALL)


def _fms(config: RouterConfig, given: TorchInputs, topk_first: bool, bias: Any = None) -> Routing:
    import torch
    from torch.nn import functional as F

    module, width = _module(), given.hidden.shape[1]

    def run(experts: Any) -> Any:
        block = SimpleNamespace(
            gate=lambda hidden: F.linear(hidden, given.gate_weight, bias),
            cond_ffn=lambda x, ids, _: experts(ids).to(x.dtype),
            dim=width,
            topk_first=topk_first,
            num_activated_experts=config.top_k,
        )
        return module.MOEFeedForward.forward(block, given.hidden[None])

    return stacked_routes(run, top_k=config.top_k, library=torch, width=width)


@FAMILY.function(Claim.of_preset("mixtral", **_ALL_NARROW), promises=SORTED)
def moe(config: RouterConfig, given: TorchInputs) -> Routing:
    """``MOEFeedForward`` of Mixtral."""
    return _fms(config, given, topk_first=False)


@FAMILY.function(Claim.of_preset("gpt_oss"), promises=SORTED)
def moe_topk_first(config: RouterConfig, given: TorchInputs) -> Routing:
    """``MOEFeedForward`` with ``topk_first``: Granite, gpt-oss."""
    return _fms(config, given, topk_first=True, bias=given.gate_bias)


MEMBERS = FAMILY.members
OUT_OF_SCOPE: dict[str, str] = {}

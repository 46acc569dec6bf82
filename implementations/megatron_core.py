"""Megatron-Core's routing function, called as it is with given logits."""

from __future__ import annotations

import importlib
import math
import sys
from dataclasses import replace
from itertools import product
from types import ModuleType
from typing import Any

from moe_routing.implementations.capabilities import ANY, Capabilities, Claim, GroupRule
from moe_routing.implementations.layouts import RoutingMap
from moe_routing.implementations.protocol import BackendMissing
from moe_routing.implementations.tensors import torch_inputs
from moe_routing.reference import Renormalize, RouterConfig, RouterInputs

INSTALL = "python -m pip install --no-deps megatron-core==0.16.1"
_FROM_TWO = range(2, sys.maxsize)
_NODES = GroupRule(top=(2,), fill=(-math.inf,))
_DEVICES = GroupRule(top=(1,), fill=(0.0,))


_PRE = {"name": "pre", "scale": ANY}
_SIGMOID: dict[str, Any] = {
    "name": "sigmoid",
    "score": ("sigmoid",),
    "groups": (None, _NODES),
    "selection_bias": ("none", "gate"),
    "scale": ANY,
}
_CLAIMS = (
    Claim.plain(groups=(None, _NODES), **_PRE),
    Claim.plain(groups=(_DEVICES,), weights_from=("masked_scores",), **_PRE),
    Claim.plain(
        name="post", score=("identity",), weights_from=("softmax_of_selected",), scale=ANY
    ),
    Claim.plain(top_k=(1,), **_SIGMOID),
    Claim.plain(top_k=_FROM_TWO, renormalize=(Renormalize(eps=1e-20),), **_SIGMOID),
)
_CAPABILITIES = Capabilities(
    claims=tuple(
        replace(claim, scores_dtype=(dtype,), weights_dtype=(dtype,))
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
        claim = self.capabilities().require(config, inputs)
        function = _moe_utils().topk_routing_with_score_function
        import torch

        given, groups = torch_inputs(inputs, self.device), config.groups
        wide = config.scores_dtype == "float32"
        with torch.no_grad():
            probs, routing_map = function(
                given.logits.float() if wide else given.logits,
                config.top_k,
                use_pre_softmax=claim.name == "pre",
                num_groups=groups and groups.count,
                group_topk=groups and groups.kept,
                scaling_factor=config.scale,
                score_function="sigmoid" if claim.name == "sigmoid" else "softmax",
                expert_bias=given.selection_bias,
            )
        return RoutingMap(probs=probs, routing_map=routing_map)


def _moe_utils() -> ModuleType:
    try:
        return importlib.import_module("megatron.core.transformer.moe.moe_utils")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "megatron":
            raise BackendMissing(f"megatron-core is not installed: {INSTALL}") from error
        raise BackendMissing(
            f"megatron-core needs {error.name}, which is missing: python -m pip install {error.name}"
        ) from error

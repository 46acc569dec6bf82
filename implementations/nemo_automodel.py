"""NeMo Automodel's gate, with the settings of the models that it trains."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.from_two import FromTwo
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.promises import SORTED
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing
from moe_routing.reference.config import LEAST_PRECISE

INSTALL = "python -m pip install --no-deps nemo-automodel==0.7.0"
FAMILY = Family("nemo-automodel", "nemo-automodel", on_any_device=True)

_PARTS = "nemo_automodel.components.moe"
_REAL = tuple(f"{_PARTS}.{name}" for name in ("config", "router_replay"))
_NORM = (None, FromTwo(Renormalize(eps=1e-20)))
_LINEAR: dict[str, Any] = {"gate_bias": (False, True), "scale": ANY}
_BEST_TWO = GroupRule(top=(2,), fill=(-math.inf,))
_PAIRS = Limits(min_group_size=2)
_IN_FLOAT32: dict[str, Any] = {"logits_dtype": ("float32",), "gate_dtype": LEAST_PRECISE}
"""With ``gate_precision``: models keep the gate in float32, or compute in that from 16 bits."""


@cache
def _module(name: str) -> ModuleType:
    return lone_module(f"{_PARTS}.{name}", install=INSTALL, real=_REAL)


def _claim(**axes: Any) -> Claim:
    """Claim a gate that is normalised from K = 2 on, in the dtype that it is given."""
    narrow = {"logits_dtype": ("input",), "weights_dtype": ("input",)}
    return Claim.plain(**{**_LINEAR, **narrow, "renormalize": _NORM, **axes})


def _routed(
    score: str, config: RouterConfig, given: TorchInputs, precision: Any = None, **others: Any
) -> Routing:
    layers, moe = _module("layers"), _module("config")
    groups, dtype = config.groups, given.hidden.dtype
    settings = {"n_shared_experts": 0, "train_gate": False, "gate_bias_update_factor": 0.0}
    said = moe.MoEConfig(
        n_routed_experts=config.num_experts,
        n_activated_experts=config.top_k,
        n_expert_groups=groups.count if groups else 1,
        n_limited_groups=groups.kept if groups else 1,
        aux_loss_coeff=0.0,
        score_func=score,
        route_scale=config.scale,
        dim=given.hidden.shape[1],
        inter_dim=1,
        moe_inter_dim=1,
        norm_topk_prob=config.renormalize is not None,
        router_bias=given.gate_bias is not None,
        force_e_score_correction_bias=given.selection_bias is not None,
        dtype=dtype,
        **settings,
        **others,
    )
    gate = layers.Gate(said, gate_precision=precision).to(given.hidden.device)
    gate.weight.data = given.gate_weight
    if given.gate_bias is not None:
        gate.bias.data = given.gate_bias
    if given.selection_bias is not None:
        gate.e_score_correction_bias = given.selection_bias
    mask = given.hidden.new_ones(given.hidden.shape[0]).bool()
    weights, ids, *_ = gate(given.hidden, mask, None)
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(_claim(), promises=SORTED)
def softmax(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gate`` with ``softmax`` before top-k: Qwen3-MoE."""
    return _routed("softmax", config, given, softmax_before_topk=True)


@FAMILY.function(
    _claim(score=("identity",), weights_from=("softmax_of_selected",)), promises=SORTED
)
def softmax_after_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gate`` with ``softmax`` after top-k: gpt-oss, Mixtral."""
    return _routed("softmax", config, given)


@FAMILY.function(
    _claim(score=("sigmoid",), groups=(None, _BEST_TWO), selection_bias=("gate",)), limits=_PAIRS
)
def sigmoid(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gate`` with ``sigmoid``: DeepSeek-V3, GLM-4.5."""
    return _routed("sigmoid", config, given)


@FAMILY.function(
    _claim(score=("sigmoid",), groups=(None, _BEST_TWO), selection_bias=("none", "gate")),
    limits=_PAIRS,
)
def sigmoid_with_bias(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gate`` with ``sigmoid_with_bias``."""
    return _routed("sigmoid_with_bias", config, given)


@FAMILY.function(
    _claim(groups=(None, GroupRule(top=(2,), fill=(0.0,))), selection_bias=("none", "gate")),
    limits=_PAIRS,
)
def softmax_with_bias(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gate`` with ``softmax_with_bias``: Mistral 4, Ernie 4.5."""
    return _routed("softmax_with_bias", config, given)


@FAMILY.function(_claim(score=("sqrtsoftplus",), selection_bias=("none", "gate")), promises=SORTED)
def sqrtsoftplus(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gate`` with ``sqrtsoftplus``: DeepSeek-V4."""
    return _routed("sqrtsoftplus", config, given)


def _in_float32(score: str, config: RouterConfig, given: TorchInputs, **others: Any) -> Routing:
    import torch

    return _routed(score, config, given, precision=torch.float32, **others)


@FAMILY.function(
    _claim(
        score=("sigmoid",),
        selection_bias=("none", "gate"),
        **{**_IN_FLOAT32, "weights_dtype": ("float32",)},
    )
)
def sigmoid_in_float32(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gate`` with ``sigmoid_with_bias``, all of it in float32: Kimi-Linear."""
    return _in_float32("sigmoid_with_bias", config, given, router_weights_fp32=True)


@FAMILY.function(
    _claim(selection_bias=("none", "gate"), **_IN_FLOAT32),
    promises=SORTED,
)
def softmax_in_float32(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gate`` with ``softmax_with_bias`` and a product in float32: Ernie 4.5."""
    return _in_float32("softmax_with_bias", config, given)


@FAMILY.function(
    _claim(
        score=("sqrtsoftplus",),
        selection_bias=("none", "gate"),
        **{**_IN_FLOAT32, "weights_dtype": ("float32",)},
    ),
    promises=SORTED,
)
def sqrtsoftplus_in_float32(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Gate`` with ``sqrtsoftplus``, all of it in float32: DeepSeek-V4.1."""
    return _in_float32("sqrtsoftplus", config, given, router_weights_fp32=True)


MEMBERS = FAMILY.members
OUT_OF_SCOPE: dict[str, str] = {}

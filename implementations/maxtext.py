"""MaxText's gate and its top-k, in JAX on a CPU, with the settings of its models."""

from __future__ import annotations

import math
from functools import cache, partial
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.functions import Family
from moe_routing.implementations.jax_arrays import TIES, jax_inputs, jitted
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import RouterConfig, Routing

INSTALL = (
    "python -m pip install --no-deps --ignore-requires-python maxtext==0.2.5 && "
    "python -m pip install flax"
)
FAMILY = Family("maxtext", "maxtext", arrays=jax_inputs)

_PARTS = ("layers.linears", "layers.quantizations", "common.common_types")
_METHODS = ("deepseek_routing", "deepseek_scale_weights", "expert_group_mask")
_NARROW: dict[str, Any] = dict.fromkeys(
    ("logits_dtype", "scores_dtype", "weights_dtype"), ("input",)
)
_V3: dict[str, Any] = {
    "groups": (None, GroupRule(top=(2,), fill=(-math.inf,))),
    "scale": ANY,
}
_LIMITS = Limits(min_group_size=2)


@cache
def _module() -> ModuleType:
    real = [f"maxtext.{each}" for each in _PARTS]
    absent = ("aqt", "qwix", "tokamax", "drjax")
    return lone_module("maxtext.layers.moe", install=INSTALL, real=real, absent=absent)


def _routed(
    config: RouterConfig, given: TorchInputs, model: str, block: str, **own: Any
) -> Routing:
    """Call the gate of a model, and the layer's top-k on what it gives."""
    moe, hidden = _module(), given.hidden
    dtype = "float32" if own.get("float32_gate_logits") else hidden.dtype
    bias = given.gate_bias if given.selection_bias is None else given.selection_bias
    gate = SimpleNamespace(model_name=model, dtype=dtype, axis=(-1,), bias=bias)
    gate.kernel, gate.use_bias = given.gate_weight.T, bias is not None
    gate.score_func, gate.quant, gate.quant_dot_general = own.get("score", ""), None, None
    gate.shard_mode, gate.matmul_precision = None, "default"
    logits, unbiased = moe.GateLogit.__call__(gate, hidden[None])
    groups, kinds = config.groups, moe.ctypes.DecoderBlockType
    said = SimpleNamespace(model_name=model, decoder_block=kinds(block), use_random_routing=False)
    said.n_routing_groups = groups.count if groups else -1
    said.topk_routing_group, said.model_call_mode = groups.kept if groups else -1, ""
    said.routed_score_func, said.routed_scaling_factor = own.get("score", ""), config.scale
    said.norm_topk_prob = config.renormalize is not None
    said.moe_expert_routing_tag = said.remat_policy = said.remat_policy_for_vit = ""
    layer = SimpleNamespace(config=said, num_experts=config.num_experts, is_hash_routing=False)
    layer.num_experts_per_tok, layer.dtype = config.top_k, hidden.dtype
    scale = given.per_expert_scale
    layer.per_expert_scale = None if scale is None else SimpleNamespace(value=scale)
    for name in _METHODS:
        setattr(layer, name, partial(getattr(moe.RoutedMoE, name), layer))
    weights, ids = moe.RoutedMoE.get_topk(layer, logits, unbiased)
    return Routing(weights=weights[0], expert_ids=ids[0])


@FAMILY.function(Claim.of_preset("deepseek_v3", **_V3, **_NARROW), limits=_LIMITS, promises=TIES)
@jitted
def deepseek3(config: RouterConfig, given: TorchInputs) -> Routing:
    """DeepSeek-V3 and Kimi-K2 as they are configured: the gate is in the dtype of the model."""
    return _routed(config, given, "deepseek3-671b", "deepseek", score="sigmoid")


@FAMILY.function(Claim.of_preset("deepseek_v3", **_V3), limits=_LIMITS)
@jitted
def deepseek3_float32(config: RouterConfig, given: TorchInputs) -> Routing:
    """The same with ``float32_gate_logits``."""
    own = {"score": "sigmoid", "float32_gate_logits": True}
    return _routed(config, given, "kimi-k2-1t", "deepseek", **own)


@FAMILY.function(
    Claim.plain(
        score=("identity",),
        weights_from=("softmax_of_selected",),
        logits_dtype=("input",),
        weights_dtype=("input",),
    )
)
@jitted
def mixtral(config: RouterConfig, given: TorchInputs) -> Routing:
    """Mixtral, and every model without a case of its own."""
    return _routed(config, given, "mixtral-8x7b", "mixtral")


@FAMILY.function(Claim.of_preset("gpt_oss", scores_dtype=("float32",)))
@jitted
def gpt_oss(config: RouterConfig, given: TorchInputs) -> Routing:
    """gpt-oss, with a linear bias on its gate."""
    return _routed(config, given, "gpt-oss-120b", "gpt_oss")


@FAMILY.function(Claim.of_preset("gemma4_text", input_norm=(False,), **_NARROW))
@jitted
def gemma4(config: RouterConfig, given: TorchInputs) -> Routing:
    """Gemma 4, without the norm before its gate: with a scale for every expert."""
    return _routed(config, given, "gemma4-26b", "gemma4")


MEMBERS = FAMILY.members
OUT_OF_SCOPE = {
    "llama4": "its weights are logits, whose sigmoid is taken where its experts run",
    "random_routing": "it gives tokens to experts by chance",
}

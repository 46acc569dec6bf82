"""The routers of tpu-inference, vLLM's backend for TPUs, in JAX on a CPU."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.functions import Family
from moe_routing.implementations.jax_arrays import TIES, imported_jax, jax_inputs, jitted
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = (
    "python -m pip install --no-deps tpu-inference==0.32.0 && python -m pip install flax jaxtyping"
)
FAMILY = Family("tpu-inference", "tpu-inference", arrays=jax_inputs)

_PARTS = (
    *(f"layers.jax{each}" for each in ("", ".linear", ".layers", ".moe.moe")),
    "layers.common.moe",
)
_REAL = tuple(f"tpu_inference.{each}" for each in (*_PARTS, "models.jax.utils.weight_utils"))
_NARROW: dict[str, Any] = dict.fromkeys(
    ("logits_dtype", "scores_dtype", "weights_dtype"), ("input",)
)


@cache
def _module(name: str) -> ModuleType:
    absent = ("vllm", "torchax", "transformers")
    return lone_module(f"tpu_inference.{name}", install=INSTALL, real=_REAL, absent=absent)


def _router(config: RouterConfig, given: TorchInputs) -> Any:
    """Return what stands for a router of this configuration: its settings and its weights."""
    jax = imported_jax()
    device = jax.devices("cpu")[0]
    router = SimpleNamespace(num_experts_per_tok=config.top_k, dtype=given.hidden.dtype)
    router.activation_ffw_td = jax.sharding.SingleDeviceSharding(device)
    router.mesh, router.moe_backend = jax.sharding.Mesh([device], "x"), None
    router.kernel_DE = SimpleNamespace(value=given.gate_weight.T)
    return router


@FAMILY.function(
    Claim.plain(
        score=("sigmoid", "softmax"),
        groups=(None, GroupRule(top=(2,), fill=(-math.inf,))),
        renormalize=(None, Renormalize(eps=1e-20)),
        selection_bias=("none", "gate"),
        logits_dtype=("input",),
        weights_dtype=("input",),
    ),
    limits=Limits(min_group_size=2),
    promises=TIES,
)
@jitted
def deepseek_v3(config: RouterConfig, given: TorchInputs) -> Routing:
    """``DeepSeekV3Router``: DeepSeek-V3, Kimi-K2, GLM-4.5; its scale is applied elsewhere."""
    cls = _module("models.jax.deepseek_v3").DeepSeekV3Router
    groups, bias = config.groups, given.selection_bias
    values = vars(_router(config, given)) | {"num_experts": config.num_experts}
    values |= {"n_groups": groups.count if groups else 1, "scoring_func": config.score}
    values |= {"topk_groups": groups.kept if groups else 1, "quant_method": None, "bias": None}
    values |= {"norm_topk_prob": config.renormalize is not None, "einsum_str": "TD,DE->TE"}
    values |= {
        "weight": values["kernel_DE"],
        "e_score_correction_bias": 0 if bias is None else bias,
    }

    class Filled(cls):  # type: ignore[misc, valid-type]
        """The router, filled without the draw of weights that its own constructor makes."""

        def __init__(self) -> None:
            for name, value in values.items():
                setattr(self, name, value)

    weights, ids = Filled()(given.hidden)
    return Routing(weights=weights, expert_ids=ids)


def _stacked(config: RouterConfig, given: TorchInputs, act: str) -> Routing:
    router = _router(config, given)
    router.router_act, router.activation_ffw_td = act, ()
    weights, ids = _module("layers.jax.moe.moe").Router.__call__(router, given.hidden)
    return Routing(weights=weights, expert_ids=ids)


@FAMILY.function(Claim.of_preset("llama4_text", **_NARROW))
@jitted
def llama4(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Router`` with a sigmoid: Llama 4."""
    return _stacked(config, given, "sigmoid")


@FAMILY.function(Claim.plain(score=("identity",), weights_from=("softmax_of_selected",), **_NARROW))
@jitted
def softmax(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Router`` with a softmax: Mixtral."""
    return _stacked(config, given, "softmax")


@FAMILY.function(Claim.of_preset("gpt_oss"))
@jitted
def gpt_oss(config: RouterConfig, given: TorchInputs) -> Routing:
    """``GptOssRouter``."""
    router = _router(config, given)
    router.bias_E = SimpleNamespace(value=0 if given.gate_bias is None else given.gate_bias)
    call = _module("layers.jax.moe.gpt_oss_moe").GptOssRouter.__call__
    weights, ids = call(router, given.hidden)
    return Routing(weights=weights, expert_ids=ids)


MEMBERS = FAMILY.members
OUT_OF_SCOPE = {
    "fused_moe": "it is a Pallas kernel, which needs a TPU",
}

"""SGLang's routing functions: those in plain torch, called as they are, and its kernels."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.functions import Family, shares_of
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY, POSITIVE
from moe_routing.implementations.promises import SORTED
from moe_routing.implementations.sglang_biased import KERNELS
from moe_routing.implementations.sglang_kernels import INSTALL
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing, SharedSlots
from moe_routing.reference.config import LEAST_PRECISE

FAMILY = Family("sglang", "sglang", on_any_device=True)

_NORM = (None, Renormalize(eps=1e-20))
_FLOAT32: dict[str, Any] = {"gate_dtype": ("float32",)}
"""What is given float32 logits, in models of 16 bits too."""

_EITHER: dict[str, Any] = {"gate_dtype": LEAST_PRECISE}
"""What is given logits in the dtype of the model, or in float32."""

_BIASED: dict[str, Any] = {
    **{"selection_bias": ("gate",), "renormalize": _NORM, "scale": ANY},
    **_FLOAT32,
}


@cache
def _module(name: str, *real: str) -> ModuleType:
    return lone_module(f"sglang.srt.{name}", install=INSTALL, real=real, absent=("sgl_kernel",))


def _call(function: str, config: RouterConfig, given: TorchInputs, **others: Any) -> Routing:
    """Call a function of ``topk.py`` with what all of them take."""
    route = getattr(_module("layers.moe.topk"), function)
    norm = config.renormalize is not None
    slots = config.top_k + (0 if config.shared_slots is None else config.shared_slots.count)
    weights, ids = route(given.logits, given.logits, topk=slots, renormalize=norm, **others)[:2]
    return Routing(weights=weights, expert_ids=ids)


def _scaled(config: RouterConfig, given: TorchInputs, **others: Any) -> dict[str, Any]:
    factor = {"apply_routed_scaling_factor_on_output": True, "routed_scaling_factor": config.scale}
    return {"correction_bias": given.selection_bias, **factor, **others}


def _groups(config: RouterConfig) -> dict[str, int]:
    assert config.groups is not None, "claimed are groups alone"
    return {"num_expert_group": config.groups.count, "topk_group": config.groups.kept}


@FAMILY.function(
    Claim.plain(score=("softmax", "sigmoid", "sqrtsoftplus"), renormalize=_NORM, **_EITHER),
    takes="logits",
    promises=SORTED,
)
def fused_topk_torch_native(config: RouterConfig, given: TorchInputs) -> Routing:
    """``fused_topk_torch_native`` without a bias."""
    return _call("fused_topk_torch_native", config, given, scoring_func=config.score)


@FAMILY.function(
    Claim.plain(
        score=("softmax", "sigmoid", "sqrtsoftplus"),
        **{**_BIASED, "scale": (1.0,)},
    ),
    takes="logits",
)
def fused_topk_torch_native_biased(config: RouterConfig, given: TorchInputs) -> Routing:
    """``fused_topk_torch_native`` with a bias."""
    bias = {"scoring_func": config.score, "correction_bias": given.selection_bias}
    return _call("fused_topk_torch_native", config, given, **bias)


@FAMILY.function(Claim.plain(renormalize=(None, Renormalize()), **_EITHER), takes="logits")
def fused_topk_softmax_torch_raw_logits(config: RouterConfig, given: TorchInputs) -> Routing:
    """``fused_topk_softmax_torch_raw_logits``."""
    return _call("fused_topk_softmax_torch_raw_logits", config, given)


@FAMILY.function(
    Claim.of_preset("deepseek_v2", renormalize=_NORM, scale=ANY, **_FLOAT32), takes="logits"
)
def grouped_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``grouped_topk_gpu``, which is plain torch: DeepSeek-V2."""
    factor = _scaled(config, given)
    del factor["correction_bias"]
    return _call("grouped_topk_gpu", config, given, **_groups(config), **factor)


@FAMILY.function(Claim.plain(score=("sigmoid",), **_BIASED), takes="logits")
def kimi_k2_biased_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``kimi_k2_biased_topk_impl``, for a single group."""
    return _call("kimi_k2_biased_topk_impl", config, given, **_scaled(config, given))


@FAMILY.function(Claim.plain(score=("sigmoid", "sqrtsoftplus"), **_BIASED), takes="logits")
def biased_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``biased_topk_impl``, run eagerly."""
    score = {"scoring_func": config.score}
    return _call("biased_topk_impl", config, given, **_scaled(config, given, **score))


@FAMILY.function(
    Claim.plain(score=("sigmoid",), groups=(GroupRule(top=(2,), fill=(-math.inf,)),), **_BIASED),
    takes="logits",
    limits=Limits(min_group_size=2),
)
def biased_grouped_topk(config: RouterConfig, given: TorchInputs) -> Routing:
    """``biased_grouped_topk_impl``: DeepSeek-V3."""
    return _call(
        "biased_grouped_topk_impl", config, given, **_scaled(config, given, **_groups(config))
    )


_SHARED: tuple[dict[str, Any], ...] = (
    {"scale": POSITIVE, "shared_slots": (SharedSlots(),)},
    {"scale": (1.0,), "shared_slots": (SharedSlots(weight=0.4),)},
)
"""What a fused shared expert weighs: 1 where the scale is applied, 1 / 2.5 where the layer does."""

_FUSED: dict[str, Any] = {"experts": range(9, 4097), "max_top_k": 8, "min_tokens": 1}
"""One expert more than K is taken: its slot becomes the shared one's."""


def _with_shared(config: RouterConfig, **others: Any) -> dict[str, Any]:
    """Return what a function takes that has the last of its slots for a shared expert."""
    shared = config.shared_slots
    assert shared is not None, "claimed are shared slots alone"
    factor = config.scale if shared.weight == 1.0 else 1.0 / shared.weight
    others |= {"apply_routed_scaling_factor_on_output": shared.weight == 1.0}
    return {**others, "num_fused_shared_experts": shared.count, "routed_scaling_factor": factor}


@FAMILY.function(
    *(Claim.of_preset("deepseek_v2", **{"renormalize": _NORM, **_FLOAT32, **x}) for x in _SHARED),
    takes="logits",
    limits=Limits(**_FUSED),
)
def grouped_topk_shared(config: RouterConfig, given: TorchInputs) -> Routing:
    """``grouped_topk_gpu`` with a fused shared expert: DeepSeek-V2."""
    return _call("grouped_topk_gpu", config, given, **_with_shared(config, **_groups(config)))


@FAMILY.function(
    *(Claim.plain(**{"score": ("sigmoid", "sqrtsoftplus"), **_BIASED, **x}) for x in _SHARED),
    takes="logits",
    limits=Limits(**_FUSED),
)
def biased_topk_shared(config: RouterConfig, given: TorchInputs) -> Routing:
    """``biased_topk_impl`` with a fused shared expert, run eagerly."""
    others = {"scoring_func": config.score, "correction_bias": given.selection_bias}
    return _call("biased_topk_impl", config, given, **_with_shared(config, **others))


@FAMILY.function(
    *(
        Claim.plain(
            **{
                **{"score": ("sigmoid",), "groups": (GroupRule(top=(2,), fill=(-math.inf,)),)},
                **_BIASED,
                **axes,
            }
        )
        for axes in _SHARED
    ),
    takes="logits",
    limits=Limits(min_group_size=2, **_FUSED),
)
def biased_grouped_topk_shared(config: RouterConfig, given: TorchInputs) -> Routing:
    """``biased_grouped_topk_impl`` with a fused shared expert: DeepSeek-V3."""
    others = {"correction_bias": given.selection_bias, **_groups(config)}
    return _call("biased_grouped_topk_impl", config, given, **_with_shared(config, **others))


@FAMILY.function(
    Claim.plain(
        renormalize=(None, Renormalize()),
        groups=(None, GroupRule(from_each=(True,))),
        **_EITHER,
    ),
    takes="logits",
)
def interns1pro(config: RouterConfig, given: TorchInputs) -> Routing:
    """``_custom_routing_function`` of InternS1-Pro, whose groups each give a share."""
    layer = _module("models.interns1pro").InternS1ProTextDecoderLayer
    block = SimpleNamespace(get_group_offsets=layer.get_group_offsets)
    block.router_n_groups, norm = shares_of(config), config.renormalize is not None
    route = layer._custom_routing_function
    found = route(block, given.logits, given.logits, config.top_k, norm)
    return Routing(weights=found[0], expert_ids=found[1])


NEEDS_GPU = KERNELS.members
MEMBERS = (*FAMILY.members, *NEEDS_GPU)
OUT_OF_SCOPE = {
    "several_shared": "of several fused shared experts each token has one, drawn at random, in a "
    "single slot: no id is the right one",
    "inkling_gate_topk_renorm": "its weights are renormalised with those of shared experts",
    "bf16_mega_gate": "it is a kernel of deep_gemm, which the wheel has not",
    "topk_softmax_cpu": "it is a compiled operation of sgl_kernel's build for CPUs",
    "llama4": "its top-k is in a module that imports the whole server",
    "phimoe": "it picks two experts one after the other (sparsemixer)",
}


def __getattr__(name: str) -> Any:
    return KERNELS.made(name)

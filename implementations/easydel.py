"""EasyDeL's selection of experts in its GLM-4 MoE model, in JAX on a CPU.

Its block calls the function with logits alone: the selection bias that its gate holds is a need of
the model, and is claimed as one.
"""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType

from moe_routing.implementations.claims import Claim, GroupRule
from moe_routing.implementations.functions import Family
from moe_routing.implementations.jax_arrays import TIES, jax_inputs, jitted
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = "python -m pip install --no-deps easydel==0.3.0 && python -m pip install jax"
FAMILY = Family("easydel", "easydel", arrays=jax_inputs)

_CLAIMS = tuple(
    Claim.plain(
        score=("sigmoid",),
        groups=(GroupRule(top=(2,), fill=(-math.inf,)),),
        renormalize=(None, Renormalize(eps=1e-20)),
        scale=ANY,
        selection_bias=(bias,),
    )
    for bias in ("none", "gate")
)


@cache
def _module() -> ModuleType:
    absent = ("eformer", "ejkernel", "spectrax", "flax", "jaxtyping", "transformers")
    name = "easydel.modules.glm4_moe.modeling_glm4_moe"
    return lone_module(name, install=INSTALL, absent=absent)


@FAMILY.function(*_CLAIMS, takes="logits", dtypes=("float32",), promises=TIES)
@jitted
def glm4_moe(config: RouterConfig, given: TorchInputs) -> Routing:
    """``Glm4MoeMoE``: GLM-4.5; those of GLM-4.7 Flash and of GLM-5 have the same lines."""
    groups = config.groups
    assert groups is not None, "claimed are groups alone"
    weights, ids = _module().Glm4MoeMoE._select_experts_static(
        given.logits,
        None,
        config.top_k,
        n_routed_experts=config.num_experts,
        n_group=groups.count,
        topk_group=groups.kept,
        group_topk_k=min(2, config.num_experts // groups.count),
        norm_topk_prob=config.renormalize is not None,
        routed_scaling_factor=config.scale,
    )
    return Routing(weights=weights, expert_ids=ids)


MEMBERS = FAMILY.members
OUT_OF_SCOPE = {
    "deepseek_v3": "its gate returns K weights without their experts, which its block takes for "
    "logits of K experts",
}

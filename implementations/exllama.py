"""ExLlamaV3's router in plain torch, which its kernel is tested against."""

from __future__ import annotations

from functools import cache
from types import ModuleType, SimpleNamespace

from moe_routing.implementations.capabilities import Limits
from moe_routing.implementations.claims import Claim
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.permitted import ANY
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import RouterConfig, Routing

INSTALL = "python -m pip install --no-deps exllamav3==1.6.5"
FAMILY = Family("exllamav3", "exllamav3", on_any_device=True)


@cache
def _module() -> ModuleType:
    return lone_module("exllamav3.modules.block_sparse_mlp_routing", install=INSTALL)


@FAMILY.function(
    Claim.of_preset(
        "deepseek_v3",
        groups=tuple(rule for rule in Claim.of_preset("deepseek_v3").groups if rule),
        scale=ANY,
        weights_dtype=("input",),
    ),
    dtypes=("float16",),
    limits=Limits(min_group_size=2),
)
def ds3_torch(config: RouterConfig, given: TorchInputs) -> Routing:
    """``_routing_ds3_torch``: DeepSeek-V3, in the float16 of its engine."""
    groups = config.groups
    assert groups is not None, "claimed are groups alone"
    said = SimpleNamespace(num_experts=config.num_experts, num_experts_per_tok=config.top_k)
    said.gate_tensor, said.e_score_correction_bias = given.gate_weight.T, given.selection_bias
    said.n_group, said.topk_group, said.routed_scaling_factor = (
        groups.count,
        groups.kept,
        config.scale,
    )
    ids, weights = _module()._routing_ds3_torch(len(given.hidden), said, given.hidden, {})
    return Routing(weights=weights, expert_ids=ids)


MEMBERS = FAMILY.members
OUT_OF_SCOPE = dict.fromkeys(
    ("routing_std", "routing_std_bias", "routing_ds3", "routing_dots", "routing_sqrtsp"),
    "it is a compiled operation of exllamav3_ext, which needs a GPU",
)

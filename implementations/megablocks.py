"""MegaBlocks' router."""

from __future__ import annotations

from functools import cache, partial
from types import ModuleType, SimpleNamespace

from moe_routing.implementations.claims import Claim
from moe_routing.implementations.functions import Family
from moe_routing.implementations.lone_modules import lone_module
from moe_routing.implementations.promises import SORTED
from moe_routing.implementations.tensors import TorchInputs
from moe_routing.reference import Renormalize, RouterConfig, Routing

INSTALL = "python -m pip install --no-deps --no-build-isolation megablocks==0.10.0"
FAMILY = Family("megablocks", "megablocks", on_any_device=True)


@cache
def _module() -> ModuleType:
    return lone_module("megablocks.layers.router", install=INSTALL)


@FAMILY.only(
    Claim.of_preset("dbrx", renormalize=(None, Renormalize(), Renormalize(order=2.0))),
    promises=SORTED,
)
def learned_router(config: RouterConfig, given: TorchInputs) -> Routing:
    """``LearnedRouter``: DBRX, dMoE."""
    from torch.nn import functional as F

    norm, router = config.renormalize, _module().LearnedRouter
    said = SimpleNamespace(moe_num_experts=config.num_experts, moe_top_k=config.top_k)
    said.moe_zloss_weight, said.uniform_expert_assignment = 0, False
    said.moe_normalize_expert_weights = None if norm is None else norm.order
    block = SimpleNamespace(args=said, training=False)
    block.layer = lambda hidden: F.linear(hidden, given.gate_weight)
    block._top_k = partial(router._top_k, block)
    _, weights, ids = router.forward(block, given.hidden)
    return Routing(weights=weights, expert_ids=ids)


MEMBERS = FAMILY.members
OUT_OF_SCOPE: dict[str, str] = {}

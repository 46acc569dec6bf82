"""Honest variants that stop at some size: what they refuse, they do not claim."""

from __future__ import annotations

import sys

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.stages import config
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Capabilities, Claim, GroupRule, Limits
from moe_routing.reference import RouterConfig

_GROUPED = (Claim(groups=(GroupRule(),), expert_table=(False,)),)


def _stops(name: str, why: str, claims: tuple[Claim, ...] = (Claim(),), **limits: object) -> None:
    """Register a router that refuses what is beyond its limits."""
    claimed = Capabilities(claims=claims, limits=Limits(**limits))  # type: ignore[arg-type]

    def refusing(w: Work) -> RouterConfig:
        return config(w)

    refusing.__doc__ = why
    honest(name, "config", claims=claimed)(refusing)


_stops(
    "stops-where-a-grouped-kernel-does",
    "Eight warps of 32 lanes: 8 groups of 2 to 32 experts, 4 kept, and no more than 128 in those.",
    claims=_GROUPED,
    max_groups=8,
    max_kept_groups=4,
    min_group_size=2,
    max_group_size=32,
    max_kept_experts=128,
)
_stops(
    "compiled-for-some-sizes",
    "A kernel made for some E and K is right to refuse all others.",
    experts=(8, 16, 32, 64, 128, 256),
    top_k=(1, 2, 4, 6, 8),
)
_stops(
    "even-slots-and-some-tokens",
    "Slots in pairs, batches of four tokens and more, experts in eights from 32 to a group.",
    top_k=range(2, sys.maxsize, 2),
    min_tokens=4,
    experts_multiple_of=8,
    min_group_size=4,
)

"""Honest variants of what a claim says of weights."""

from __future__ import annotations

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import scaled
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import POSITIVE, Capabilities, Claim, FromTwo
from moe_routing.reference import Renormalize

_MEGATRON = Claim(renormalize=(FromTwo(Renormalize(eps=1e-20)),), scale=POSITIVE)


@honest("renormalized-from-two-on", "renormalized", claims=Capabilities(claims=(_MEGATRON,)))
def _(w: Work) -> Array:
    """A single expert may keep its score, where one claim says both."""
    assert w.config.scale > 0, "only positive scales are claimed"
    if w.config.top_k == 1:
        return w.gathered
    return w.gathered / w.norm


@honest(
    "scaled-by-a-positive-number",
    "scaled",
    claims=Capabilities(claims=(Claim(scale=POSITIVE),)),
)
def _(w: Work) -> Array:
    """What takes 0 for unset claims scales above 0, and refuses the others."""
    assert w.config.scale > 0, "only positive scales are claimed"
    return scaled(w)

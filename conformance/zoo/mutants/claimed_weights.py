"""Mutants of what a claim says of weights: renormalised from two on, scales above 0."""

from __future__ import annotations

from dataclasses import replace

from moe_routing.conformance.zoo.residents import WHOLE, mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import checked, scaled
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import POSITIVE, Claim, FromTwo
from moe_routing.reference import Renormalize

_SEVERAL = replace(WHOLE, claims=(Claim(renormalize=(FromTwo(Renormalize()),)),))
_POSITIVE = replace(WHOLE, claims=(Claim(scale=POSITIVE),))


def _shares(w: Work) -> Array:
    total: Array = w.gathered.sum(axis=1, keepdims=True)
    return w.gathered / total


@mutant(
    "one-expert-renormalized-too",
    "M15",
    "renormalized",
    real="NVIDIA/Megatron-LM@d98e8a64",
    claims=_SEVERAL,
)
def _(w: Work) -> Array:
    """With K = 1 each weight became 1, where the model has the raw score."""
    return _shares(w)


@mutant(
    "two-experts-not-renormalized",
    "M16",
    "renormalized",
    real="NVIDIA/Megatron-LM@d98e8a64",
    claims=_SEVERAL,
)
def _(w: Work) -> Array:
    """The test for several experts was off by one: two were left as they are."""
    return _shares(w) if w.config.top_k > 2 else w.gathered


@mutant(
    "zero-scale-answered",
    "M87",
    "config",
    "scaled",
    real="NVIDIA/Megatron-LM 0.16.1, moe_utils",
    claims=_POSITIVE,
)
def _(w: Work, stage: str) -> object:
    """`if scale:` took 0 for none, in silence, and who claimed positive scales never saw it."""
    if stage == "config":
        return checked(w)
    return scaled(w) if w.config.scale else w.renormalized

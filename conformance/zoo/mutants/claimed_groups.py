"""Mutants of what a claim says of groups: a score of the best K // kept."""

from __future__ import annotations

import math
from dataclasses import replace

from moe_routing.conformance.zoo.residents import WHOLE, mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import sum_of_best
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Claim, GroupRule

SHARED_OUT = replace(
    WHOLE,
    claims=(Claim(groups=(None, GroupRule(top=("K // kept",), fill=(-math.inf,)))),),
)
"""What Megatron claims: a group scores the sum of its best K // kept."""


@mutant(
    "shared-out-by-groups-over-kept",
    "M24",
    "group_scores",
    real="NVIDIA/Megatron-LM@325e7c8017",
    claims=SHARED_OUT,
)
def _(w: Work) -> Array:
    """The number of summed experts was the groups' quotient, not that of K."""
    return sum_of_best(w, max(1, w.groups.count // w.groups.kept))


@mutant(
    "shared-out-as-two",
    "M24",
    "group_scores",
    real="EricLBuehler/mistral.rs#1278",
    claims=SHARED_OUT,
)
def _(w: Work) -> Array:
    """Two experts were summed whatever K is, as for DeepSeek-V3, whose K // kept is 2."""
    return sum_of_best(w, 2)

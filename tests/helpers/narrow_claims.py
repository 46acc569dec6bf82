"""Claims that are narrow in one way each."""

from __future__ import annotations

from typing import Any

from moe_routing.implementations import Capabilities, Claim, GroupRule, Limits
from moe_routing.reference import Renormalize


def claiming(**axes: Any) -> Capabilities:
    return Capabilities(claims=(Claim(**axes),))


WHOLE = (Claim.whole(),)
"""Every axis, so that what is missing under a narrow claim is missing for that alone."""
EVERY_PART = dict.fromkeys(("gate_bias", "gate_delta", "per_expert_scale"), (True,))
NARROW: dict[str, Capabilities] = {
    "logits": Capabilities(claims=WHOLE, takes="logits"),
    "bfloat16 logits": Capabilities(takes="logits", dtypes=("bfloat16",)),
    "rows": Capabilities(claims=WHOLE, layouts=("contiguous",)),
    "E in eights": Capabilities(claims=WHOLE, limits=Limits(experts_multiple_of=8)),
    "E in 64s": Capabilities(limits=Limits(experts_multiple_of=64, max_experts=256, max_top_k=8)),
    "E to 3": Capabilities(limits=Limits(max_experts=3)),
    "K=1": Capabilities(limits=Limits(max_top_k=1)),
    "T=1": Capabilities(limits=Limits(max_tokens=1)),
    "T to 16": Capabilities(claims=WHOLE, limits=Limits(max_tokens=16)),
    "hash routing": claiming(expert_table=(True,)),
    "bias on the gate": claiming(score=("sigmoid",), selection_bias=("gate",)),
    "linear bias": Capabilities(claims=(Claim.whole(gate_bias=(True,)),)),
    "every part": claiming(**EVERY_PART, selection_bias=("block",), input_norm=(True,)),
    "groups": claiming(groups=(GroupRule(top=(1,), fill=(0.0,)),)),
    "K=8 in groups": claiming(top_k=(8,), groups=(GroupRule(),)),
    "identity": claiming(score=("identity",)),
    "scale 0": claiming(scale=(0.0,)),
    "order 2": claiming(renormalize=(Renormalize(order=2.0),)),
}

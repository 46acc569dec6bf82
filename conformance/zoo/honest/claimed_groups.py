"""Honest variants of what a claim says of groups."""

from __future__ import annotations

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import sum_of_best
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Capabilities, Claim, GroupRule


def _of(top: str) -> Capabilities:
    return Capabilities(claims=(Claim(groups=(None, GroupRule(top=(top,)))),))


@honest("group-score-of-k-over-kept", "group_scores", claims=_of("K // kept"))
def _(w: Work) -> Array:
    """Where the claim says so, the number of summed experts is K // kept, as Megatron has it."""
    return sum_of_best(w, w.config.top_k // w.groups.kept)


@honest("group-score-of-an-exact-share", "group_scores", claims=_of("K / kept"))
def _(w: Work) -> Array:
    """A kernel that refuses K which the kept groups do not divide claims no such K."""
    assert w.config.top_k % w.groups.kept == 0, "K % kept was to be refused"
    return sum_of_best(w, w.config.top_k // w.groups.kept)

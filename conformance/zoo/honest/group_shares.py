"""Honest variants of groups that each give a share of the K experts."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.honest.choices import highest
from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import best_of
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Capabilities, Claim, GroupRule
from moe_routing.reference.selection import top_k

SHARED = Capabilities(
    claims=(Claim(groups=(GroupRule(from_each=(True,)),), expert_table=(False,)),)
)


@honest("share-ties-to-the-highest", "expert_ids", claims=SHARED)
def _(w: Work) -> Array:
    """A tie within a group may go to any of the tied, and groups may come in any order."""
    return np.ascontiguousarray(best_of(w, highest)[:, ::-1])


@honest("share-by-a-mask", "expert_ids", claims=SHARED)
def _(w: Work) -> Array:
    """What each group gives may be marked in a mask, and read off by the ids."""
    chosen = np.zeros(w.competing.shape, bool)
    np.put_along_axis(chosen, best_of(w, top_k), True, axis=1)
    ids = np.ascontiguousarray(np.nonzero(chosen)[1])
    return ids.reshape(len(chosen), w.config.top_k)

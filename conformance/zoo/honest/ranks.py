"""Honest variants of ranks that run at once: precision, orders, replicas, batches."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.ranks import RanksWork, StagedRanks
from moe_routing.implementations import Capabilities
from moe_routing.implementations.shards import Shards
from moe_routing.reference import experts

ranks = partial(honest, makes=StagedRanks)


@ranks("ranks-plainly", "summed")
def _(w: RanksWork) -> Array:
    """Each rank runs its own experts, and their answers are added: the usual form."""
    found: Array = w.right("summed")
    return found


@ranks("ranks-in-another-order", "summed")
def _(w: RanksWork) -> Array:
    """Parts may be added from the last rank to the first."""
    total = np.zeros_like(w.parts[0])
    for part in w.parts[::-1]:
        total = total + part
    form = w.call.batches[0].dtype
    return total if form == "float32" else np.asarray(w.right("summed"))


@ranks("ranks-in-float64", "parts")
def _(w: RanksWork) -> list[Array]:
    """More precision than is due."""
    found = []
    for rank in w.ranks:
        call = w.local(rank)
        whole = None if call is None else experts(*call)
        found.append(np.zeros(w.hidden.shape) if whole is None else whole)
    return found


@ranks("ranks-replicas-first-alone", "target")
def _(w: RanksWork) -> Array:
    """The first replica may answer everything."""
    right: Array = w.right("target").copy()
    for expert in np.unique(w.ids[w.ids >= 0]):
        right[w.ids == expert] = w.placement.rank_of[w.placement.logical_of == expert][0]
    return right


@ranks(
    "ranks-with-the-same-tokens",
    "summed",
    claims=Capabilities(shards=Shards(batches="shared")),
)
def _(w: RanksWork) -> Array:
    """A backend whose ranks all have the same tokens adds up what each makes of them."""
    found: Array = w.right("summed")
    return found

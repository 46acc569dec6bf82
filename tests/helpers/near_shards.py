"""Near misses of the events of shards: all is there but the one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from near_experts import ran

from moe_routing.conformance.calls.shards import ShardsCase
from moe_routing.conformance.events.shards import EVEN, MIXED, UNEVEN
from moe_routing.conformance.generators.shards import sharded
from moe_routing.reference import Placement


def spread(
    ranks: Sequence[int] = EVEN,
    logical: Sequence[int] = (0, 1, 2, 3),
    number: int = 2,
    *,
    ids: Any = MIXED,
    **parts: Any,
) -> ShardsCase:
    """Return the case of four experts in these places."""
    where = Placement(
        rank_of=np.array(ranks), logical_of=np.array(logical[: len(ranks)]), num_ranks=number
    )
    return sharded(ran(ids, 4, **parts), where)


ONE_EACH = ((0, 1), (3, 2), (1, 0))
"""Three tokens, each with both experts of one rank."""

NEAR_SHARDS: dict[str, ShardsCase] = {
    "spread-several": spread(ids=ONE_EACH),
    "spread-uneven": spread(),
    "spread-moved": spread(UNEVEN),
    "spread-replicas": spread((0, 0, 1, 1, 1), (0, 1, 2, 3, 0), ids=((1, 2), (3, 1))),
    "spread-one-rank": spread(),
    "spread-skewed": spread(ids=ONE_EACH),
    "spread-idle-rank": spread(),
    "spread-rank-without-experts": spread(UNEVEN),
    "spread-lone-expert": spread((0, 1, 1, 1), ids=((1, 2), (3, 2))),
    "spread-absent": spread(ids=((0, -1), (1, 0), (-1, -1))),
    "spread-zero-weight": spread(ids=((0, -1), (3, 1))),
    "spread-biases": spread(drafted={"biased": True}, ids=((0, 1), (1, 0))),
    "spread-no-token": spread(ids=((0, 3),)),
    "spread-last-rank": spread(UNEVEN),
    "spread-exact": spread(values="exact", hidden=8, width=8, ids=ONE_EACH),
}
"""A case for each event, which does not show it."""

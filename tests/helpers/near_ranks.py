"""Near misses of the events of ranks that run at once: all is there but the one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from near_shards import ONE_EACH, spread

from moe_routing.conformance.calls.ranks import RankGradientCase, RanksCase, at_home, with_cotangent
from moe_routing.conformance.events.shards import UNEVEN
from moe_routing.conformance.generators.expert_gradients import plain_cotangent

HERE = (0, 1, 0)
"""The ranks of the tokens of ``ONE_EACH``, which have their experts."""

ONE_RANK = ((0, 1), (1, 0))


def ranked(
    home: Sequence[int] = HERE, *placed: Any, ids: Any = ONE_EACH, **parts: Any
) -> RanksCase:
    """Return the case of four experts on two ranks, with tokens at these homes."""
    return at_home(spread(*placed, ids=ids, **parts), np.array(home, np.int64))


def learned(*given: Any, **parts: Any) -> RankGradientCase:
    """Return such a case with a cotangent."""
    case = ranked(*given, **parts)
    return with_cotangent(case, plain_cotangent(case.num_tokens, case.inputs.hidden_size))


REPLICAS = ((0, 0, 1, 1, 1), (0, 1, 2, 3, 0))

NEAR_RANKS: dict[str, RanksCase] = {
    "ranked-several": ranked(),
    "ranked-uneven": ranked((0, 1), ids=((0, 3), (3, 0))),
    "ranked-last-idle": ranked((0, 0), ids=ONE_RANK),
    "ranked-first-idle": ranked((1, 1), ids=((3, 2), (2, 3))),
    "ranked-skewed": ranked((0, 0), ids=((3, 2), (2, 3))),
    "ranked-moved": ranked((0, 1), UNEVEN, ids=((0, 3), (3, 0))),
    "ranked-replicas": ranked((0, 1), *REPLICAS, ids=((1, 2), (3, 1))),
    "ranked-remainder": ranked((0, 1), UNEVEN, ids=((0, 3), (3, 0))),
    "ranked-absent": ranked((0, 0), ids=((0, -1), (1, 0))),
    "ranked-exact": ranked(values="exact", hidden=8, width=8),
    "ranked-no-token": ranked((0,), ids=((0, 3),)),
    "ranked-learned-several": learned(),
    "ranked-learned-away": learned(),
    "ranked-learned-idle": learned((0, 0), ids=ONE_RANK),
    "ranked-learned-unchosen": learned(),
    "ranked-learned-replicas": learned((0, 1), *REPLICAS, ids=((1, 2), (3, 1))),
}
"""A case for each event, which does not show it."""

"""Events of capacities: batches, experts and slots that few bits, or one block, cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from moe_routing.conformance.calls.capacity import CapacityCase
from moe_routing.conformance.events.capacity import OVER
from moe_routing.conformance.events.capacity_calls import configs, rising, summing, with_slots
from moe_routing.conformance.events.capacity_facts import over, partly
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.capacity import case_of
from moe_routing.conformance.judge.capacity import Demand
from moe_routing.implementations import Capabilities
from moe_routing.reference import Routes
from moe_routing.reference.capacity import kept_routes

FAMILIES["dropped-large"] = "drops in sizes that 16 bits, or one block of a kernel, do not hold"


def _large(
    slug: str,
    statement: str,
    occurs: Callable[[Demand], bool],
    ids: Any,
    *,
    experts: int,
    options: Sequence[dict[str, Any]] = ({},),
) -> None:
    """Register an event that these experts show, under each claimed rule of the options."""

    @event(
        f"dropped-large:{slug}",
        statement,
        lambda demand: isinstance(demand, Demand) and occurs(demand),
    )
    def _(capabilities: Capabilities) -> Iterator[CapacityCase]:
        drops = capabilities.drops
        made = (configs(drops, experts, each) for each in options)
        for config in chain.from_iterable(made):
            for top_k in (np.shape(ids)[1], 1, 2, 3, 4):
                rows = with_slots(ids, top_k, experts)
                for weights in () if rows is None else (rising(rows), summing(rows)):
                    case = case_of(config, rows, weights)
                    if not drops.refusals(config, case.inputs):
                        yield case


def _odd(demand: Demand) -> bool:
    """Whether a capacity above 2,048 is one that no 16-bit format holds, and is overrun."""
    room = demand.room[0]
    return room > 2048 and room % 4 == 1 and bool(over(demand).any())


def _blurred(demand: Demand) -> bool:
    """Whether weights in 16 bits would keep others."""
    ids = demand.routes.expert_ids
    short = demand.routes.weights.astype(np.float16).astype(np.float32)
    kept = kept_routes(demand.config, Routes(expert_ids=ids, weights=short))
    return not np.array_equal(kept, demand.kept)


_large(
    "4098-tokens",
    "4,098 tokens, and an expert that overflows a capacity above 2,048 that 16 bits do not hold",
    _odd,
    np.resize(np.array(OVER), (4098, 2)),
    experts=4,
    options=(
        {"share": "routes", "factor": 1.0},
        {"share": "tokens", "factor": 2.0},
        {"share": "one", "factor": 2049.0},
    ),
)
_large(
    "2062-tokens-by-weight",
    "routes kept by weight that 16 bits do not tell apart, where an expert overflows",
    lambda d: d.config.order == "weight" and bool(over(d).any()) and d.room[0] > 0 and _blurred(d),
    np.resize(np.array(OVER), (2062, 2)),
    experts=4,
    options=({"order": "weight"},),
)
for _survivors in ("rescaled", "normalized"):
    _large(
        f"1030-tokens-{_survivors}",
        f"1,030 tokens, the last of which lose some of their routes, and the rest is {_survivors}",
        lambda d, survivors=_survivors: (  # type: ignore[misc]
            d.config.survivors == survivors
            and d.routes.num_tokens == 1030
            and bool((partly(d) & (d.before.sum(axis=1) != 1.0))[1024:].any())
        ),
        np.resize(np.array(OVER), (1030, 2)),
        experts=4,
        options=({"survivors": _survivors, "order": "weight"}, {"survivors": _survivors}),
    )
for _number in (64, 128, 256):
    _large(
        f"{_number}-experts",
        f"{_number} experts, and the last of them in a last slot past the eighth, which overflows",
        lambda d, n=_number: d.counts.size == n and bool(over(d)[-1]),  # type: ignore[misc]
        np.tile([[*range(9), _number - 1]], (6, 1)),
        experts=_number,
    )

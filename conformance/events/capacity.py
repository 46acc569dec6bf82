"""Events of capacities: which experts overflow, and what decides about their routes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moe_routing.conformance.calls.capacity import CapacityCase
from moe_routing.conformance.events.capacity_calls import configs, rising, summing, with_slots
from moe_routing.conformance.events.capacity_facts import (
    firsts,
    is_zero,
    keeps_others,
    lost,
    over,
    parted,
    partly,
    some_over,
)
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.capacity import case_of
from moe_routing.conformance.judge.capacity import Demand
from moe_routing.implementations import Capabilities
from moe_routing.implementations.drops import Drops
from moe_routing.reference import CapacityConfig
from moe_routing.reference.formats import Ids

Occurs = Callable[[Demand], bool]

OVER = ((0, 1), (0, 2), (2, 0), (0, 3), (1, 0), (0, 1))
"""Six tokens of two slots for four experts: expert 0 has six routes, expert 3 one."""
FIRSTS = ((0, 1), (1, 0), (0, 1), (2, 0), (0, 2), (3, 1))
"""Expert 0 has three first choices, and two second ones, one of which comes before two of them."""


def _dropped(
    slug: str, statement: str, occurs: Occurs, ids: Any, *, experts: int = 4, **options: Any
) -> None:
    """Register an event that the experts ``ids`` show, under each claimed rule in turn.

    Where K is claimed otherwise, the slots are cut to it, or filled up with further experts.
    """

    @event(
        f"dropped-{slug}", statement, lambda demand: isinstance(demand, Demand) and occurs(demand)
    )
    def _(capabilities: Capabilities) -> Iterator[CapacityCase]:
        drops = capabilities.drops
        for config in configs(drops, experts, options):
            for top_k in (len(ids[0]) if len(ids) else 1, 1, 2, 3, 4):
                yield from _claimed(drops, config, with_slots(ids, top_k, config.num_experts))


def _claimed(drops: Drops, config: CapacityConfig, ids: Ids | None) -> Iterator[CapacityCase]:
    """Yield the cases of these experts that are claimed, of weights that fall and that rise."""
    for weights in () if ids is None else (rising(ids), summing(ids)):
        case = case_of(config, ids, weights)
        if not drops.refusals(config, case.inputs):
            yield case


_dropped(
    "some-over",
    "an expert has more routes than its capacity, and another no more than that",
    lambda d: some_over(d) and bool(((d.counts > 0) & (d.counts <= d.room[0])).any()),
    OVER,
)
_dropped(
    "one-over",
    "an expert has exactly one route more than its capacity",
    lambda d: bool((d.counts == d.room[1] + 1).any()) and d.room[0] == d.room[1],
    ((0, 1), (0, 2), (0, 1)),
    factor=1.0,
)
_dropped(
    "exactly-full",
    "an expert has exactly as many routes as its capacity, which is above 0",
    lambda d: bool((d.counts == d.room[0]).any()) and d.room[0] == d.room[1] > 0,
    ((0, 1), (2, 0), (3, 1), (1, 2)),
    factor=1.0,
)
_dropped(
    "fraction",
    "the capacity is no whole number before it is rounded, and an expert has more routes than it",
    lambda d: (
        d.exact.denominator > 1
        and some_over(d)
        and d.room[0] == d.room[1] > d.config.minimum
        and bool((d.counts > float(d.exact)).any())
        and math.ceil(d.exact) <= d.routes.num_tokens
    ),
    OVER[:5],
    factor=0.5,
)
_dropped(
    "minimum-at-stake",
    "the minimum is above what the factor gives, and an expert has more routes than that",
    lambda d: (
        0 < d.config.minimum == d.room[1] and bool((d.counts > max(1, math.ceil(d.exact))).any())
    ),
    OVER,
    factor=0.25,
    minimum=2,
)
_dropped(
    "slots-at-stake",
    "the share counts all slots, more than one a token, and a capacity without them would differ",
    lambda d: d.config.share == "routes" and d.routes.top_k > 1 and keeps_others(d, share="tokens"),
    OVER,
)
_dropped(
    "tokens-at-stake",
    "the share counts tokens, of more than one slot, and a capacity over all slots would differ",
    lambda d: d.config.share == "tokens" and d.routes.top_k > 1 and keeps_others(d, share="routes"),
    OVER,
    share="tokens",
)
_dropped(
    "by-token",
    "routes are kept by token, and by slot or by weight would be others",
    lambda d: d.config.order == "token" and keeps_others(d, order="weight"),
    OVER,
)
_dropped(
    "first-tokens-stay",
    "routes are kept by token, and an expert keeps some of its routes and drops others",
    lambda d: d.config.order == "token" and bool((over(d) & (d.room[0] > 0)).any()),
    OVER,
    order="token",
)
_dropped(
    "by-slot",
    "routes are kept by slot, and by token and by weight would be others",
    lambda d: (
        d.config.order == "slot"
        and keeps_others(d, order="token")
        and keeps_others(d, order="weight")
    ),
    FIRSTS,
    order="slot",
)
_dropped(
    "by-weight",
    "routes are kept by weight, and by token would be others",
    lambda d: d.config.order == "weight" and keeps_others(d, order="token"),
    OVER,
    order="weight",
)
_dropped(
    "second-slots-overflow",
    "the first slots of an expert are within its capacity, and all of its slots are not",
    lambda d: bool(((firsts(d) <= d.room[0]) & (firsts(d) > 0) & over(d)).any()),
    FIRSTS,
)
_dropped(
    "part-of-a-token",
    "a token loses some of its routes, and the others keep their weights",
    lambda d: d.config.survivors == "kept" and parted(d),
    OVER,
    survivors="kept",
)
_dropped(
    "part-rescaled",
    "a token loses some of its routes, and the others are rescaled to its sum",
    lambda d: d.config.survivors == "rescaled" and parted(d),
    OVER,
    survivors="rescaled",
)
_dropped(
    "part-normalized",
    "a token loses some of its routes, and the others are normalised, to another sum than it had",
    lambda d: (
        d.config.survivors == "normalized"
        and bool((partly(d) & (d.before.sum(axis=1) != 1.0)).any())
    ),
    OVER,
    survivors="normalized",
)
_dropped(
    "whole-token",
    "a token loses all of its routes, and another keeps some",
    lambda d: (
        d.config.order != "free"
        and bool((lost(d).any(axis=1) & ~d.kept.any(axis=1)).any())
        and bool(d.kept.any())
    ),
    ((0, 1), (1, 0), (0, 1), (1, 0)),
)
_dropped(
    "absent-beside-overflow",
    "an expert overflows, and other routes are absent",
    lambda d: some_over(d) and not bool(d.present.all()),
    ((0, 1), (-1, 0), (0, -1), (-1, -1), (0, 1), (0, 2)),
)
_dropped(
    "nothing-over",
    "every expert has room for its routes, and several have some",
    lambda d: bool(np.count_nonzero(d.counts) > 1) and bool((d.counts <= d.room[0]).all()),
    ((0, 1), (1, 2), (2, 3), (3, 0)),
    factor=2.0,
)
_dropped(
    "one-busy-expert",
    "all routes go to one expert of several, and are too many for it",
    lambda d: some_over(d) and d.counts.size > 1 and np.count_nonzero(d.counts) == 1,
    ((1,), (1,), (1,), (1,), (1,)),
)
_dropped(
    "all-over",
    "every expert, of several, has more routes than its capacity, which is above 0",
    lambda d: d.counts.size > 1 and bool(over(d).all()) and d.room[0] > 0,
    ((0, 1), (2, 3), (1, 2), (3, 0), (0, 1), (2, 3), (1, 2), (3, 0)),
    factor=0.5,
)
_dropped(
    "larger-than-batch",
    "the capacity before it is clamped is above T, and every slot has a route",
    lambda d: (
        not d.config.unlimited
        and d.exact > d.routes.num_tokens > 0
        and bool(d.present.all())
        and d.routes.num_tokens > 1
    ),
    ((0, 1), (1, 0), (0, 2)),
    factor=8.0,
)
_dropped(
    "minimum-above-batch",
    "the minimum is above T, and the factor alone would drop something",
    lambda d: d.config.minimum > d.routes.num_tokens and keeps_others(d, minimum=0),
    ((0, 1), (1, 0), (0, 2)),
    factor=0.25,
    minimum=8,
)
_dropped(
    "zero",
    "a factor of 0 leaves no room, and there are routes",
    lambda d: is_zero(d, "nothing") and d.config.minimum == 0,
    OVER,
    factor=0.0,
    minimum=0,
)
_dropped(
    "zero-with-minimum",
    "a factor of 0 leaves the minimum, which is not enough for an expert",
    lambda d: is_zero(d, "nothing") and d.config.minimum > 0 and some_over(d),
    OVER,
    factor=0.0,
)
_dropped(
    "zero-unlimited",
    "a factor of 0 takes everything, and there are routes",
    lambda d: is_zero(d, "unlimited") and bool((d.counts > max(1, d.config.minimum)).any()),
    OVER,
    factor=0.0,
    zero="unlimited",
)

FAMILIES["dropped-tokens"] = "drops among so many tokens"
FAMILIES["dropped-experts"] = "drops among so many experts, one of which overflows"


def _of_tokens(number: int) -> None:
    _dropped(
        f"tokens:{number}",
        f"{number} tokens",
        lambda d: d.routes.num_tokens == number,
        np.resize(np.array(OVER), (number, 2)),
    )


def _of_experts(number: int) -> None:
    ids = (
        [[number - 1]] * 6
        if number < 3
        else [[number - 1, each % (number - 1)] for each in range(6)]
    )
    _dropped(
        f"experts:{number}",
        f"{number} experts, the last of which overflows",
        lambda d: d.counts.size == number and bool(over(d)[-1]),
        ids,
        experts=number,
    )


for _number in (0, 1, 33, 257):
    _of_tokens(_number)
for _number in (1, 2, 60, 257):
    _of_experts(_number)

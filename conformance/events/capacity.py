"""Events of capacities: which experts overflow, and what decides about their routes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from moe_routing.conformance.calls.capacity import CapacityCase
from moe_routing.conformance.events.registry import FAMILIES, event
from moe_routing.conformance.generators.capacity import case_of
from moe_routing.conformance.judge.capacity import Demand
from moe_routing.implementations import Capabilities
from moe_routing.implementations.drops import Drops
from moe_routing.reference import CapacityConfig
from moe_routing.reference.capacity import CAPACITY_WORDS, kept_routes
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.routes import ABSENT

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
    for weights in () if ids is None else (_rising(ids), _summing(ids)):
        case = case_of(config, ids, weights)
        if not drops.refusals(config, case.inputs):
            yield case


def configs(drops: Drops, experts: int, options: dict[str, Any]) -> Iterator[CapacityConfig]:
    """Yield configurations that ``drops`` claims, the plainest first."""
    wanted = {"factor": (0.5, 1.0, 0.25, 2.0), "minimum": (0, 1, 2)}
    wanted |= {name: (value,) for name, value in options.items()}
    axes = {
        name: [each for each in wanted.get(name, words) if each in getattr(drops, name)]
        for name, words in {**CAPACITY_WORDS, "factor": (), "minimum": ()}.items()
    }
    for values in product(*axes.values()):
        given: dict[str, Any] = dict(zip(axes, values, strict=True))
        if given["share"] != "one" or given["factor"] == int(given["factor"]):
            yield CapacityConfig(num_experts=experts, **given)


def with_slots(ids: Any, top_k: int, experts: int) -> Ids | None:
    """Return rows of ``top_k`` slots: cut, or filled with experts that a row has not."""
    if top_k > experts:
        return None
    if not len(ids):
        return np.zeros((0, top_k), np.int64)
    rows = np.array(ids, np.int64)
    for _ in range(top_k - rows.shape[1]):
        free = [next(e for e in range(experts - 1, -1, -1) if e not in row) for row in rows]
        rows = np.column_stack([rows, np.array(free, np.int64)])
    return rows[:, :top_k]


def _rising(ids: Ids) -> Floats:
    """Return weights that fall along a row, and rise from token to token."""
    tokens, top_k = ids.shape
    number = np.arange(tokens)[:, None] + 1 + tokens * np.arange(top_k - 1, -1, -1)
    return np.where(ids == ABSENT, 0.0, number / 2.0 ** (int(ids.size).bit_length()))


def _summing(ids: Ids) -> Floats:
    """Return weights that fall along a row, of which those that are there sum to exactly 1."""
    there = ids != ABSENT
    parts = np.arange(ids.shape[1], 0, -1) * 16 + np.arange(len(ids))[:, None] % 13
    parts = np.where(there, parts, 0)
    rest = np.where(there.any(axis=1), 1024 - parts.sum(axis=1), 0)
    parts[np.arange(len(ids)), there.argmax(axis=1)] += rest
    return parts / 1024.0


def _over(demand: Demand) -> Bools:
    """Return which experts have more routes than they take, however a capacity is rounded."""
    over: Bools = demand.counts > demand.room[1]
    return over


def _some_over(demand: Demand) -> bool:
    return bool(_over(demand).any())


def _other(demand: Demand, **changes: Any) -> bool:
    """Whether the reference keeps other routes, or as many others, under a changed rule."""
    config = replace(demand.config, **changes)
    return not np.array_equal(kept_routes(config, demand.routes), demand.kept)


_dropped(
    "some-over",
    "an expert has more routes than its capacity, and another no more than that",
    lambda d: _some_over(d) and bool(((d.counts > 0) & (d.counts <= d.room[0])).any()),
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
        and _some_over(d)
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
    lambda d: d.config.share == "routes" and d.routes.top_k > 1 and _other(d, share="tokens"),
    OVER,
)
_dropped(
    "tokens-at-stake",
    "the share counts tokens, of more than one slot, and a capacity over all slots would differ",
    lambda d: d.config.share == "tokens" and d.routes.top_k > 1 and _other(d, share="routes"),
    OVER,
    share="tokens",
)
_dropped(
    "by-token",
    "routes are kept by token, and by slot or by weight would be others",
    lambda d: d.config.order == "token" and _other(d, order="weight"),
    OVER,
)
_dropped(
    "first-tokens-stay",
    "routes are kept by token, and an expert keeps some of its routes and drops others",
    lambda d: d.config.order == "token" and bool((_over(d) & (d.room[0] > 0)).any()),
    OVER,
    order="token",
)
_dropped(
    "by-slot",
    "routes are kept by slot, and by token and by weight would be others",
    lambda d: d.config.order == "slot" and _other(d, order="token") and _other(d, order="weight"),
    FIRSTS,
    order="slot",
)
_dropped(
    "by-weight",
    "routes are kept by weight, and by token would be others",
    lambda d: d.config.order == "weight" and _other(d, order="token"),
    OVER,
    order="weight",
)
_dropped(
    "second-slots-overflow",
    "the first slots of an expert are within its capacity, and all of its slots are not",
    lambda d: bool(((_firsts(d) <= d.room[0]) & (_firsts(d) > 0) & _over(d)).any()),
    FIRSTS,
)
_dropped(
    "part-of-a-token",
    "a token loses some of its routes, and the others keep their weights",
    lambda d: d.config.survivors == "kept" and _parted(d),
    OVER,
    survivors="kept",
)
_dropped(
    "part-rescaled",
    "a token loses some of its routes, and the others are rescaled to its sum",
    lambda d: d.config.survivors == "rescaled" and _parted(d),
    OVER,
    survivors="rescaled",
)
_dropped(
    "part-normalized",
    "a token loses some of its routes, and the others are normalised, to another sum than it had",
    lambda d: (
        d.config.survivors == "normalized"
        and bool((_partly(d) & (d.before.sum(axis=1) != 1.0)).any())
    ),
    OVER,
    survivors="normalized",
)
_dropped(
    "whole-token",
    "a token loses all of its routes, and another keeps some",
    lambda d: (
        d.config.order != "free"
        and bool((_lost(d).any(axis=1) & ~d.kept.any(axis=1)).any())
        and bool(d.kept.any())
    ),
    ((0, 1), (1, 0), (0, 1), (1, 0)),
)
_dropped(
    "absent-beside-overflow",
    "an expert overflows, and other routes are absent",
    lambda d: _some_over(d) and not bool(d.present.all()),
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
    lambda d: _some_over(d) and d.counts.size > 1 and np.count_nonzero(d.counts) == 1,
    ((1,), (1,), (1,), (1,), (1,)),
)
_dropped(
    "all-over",
    "every expert, of several, has more routes than its capacity, which is above 0",
    lambda d: d.counts.size > 1 and bool(_over(d).all()) and d.room[0] > 0,
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
    lambda d: d.config.minimum > d.routes.num_tokens and _other(d, minimum=0),
    ((0, 1), (1, 0), (0, 2)),
    factor=0.25,
    minimum=8,
)
_dropped(
    "zero",
    "a factor of 0 leaves no room, and there are routes",
    lambda d: _zero(d, "nothing") and d.config.minimum == 0,
    OVER,
    factor=0.0,
    minimum=0,
)
_dropped(
    "zero-with-minimum",
    "a factor of 0 leaves the minimum, which is not enough for an expert",
    lambda d: _zero(d, "nothing") and d.config.minimum > 0 and _some_over(d),
    OVER,
    factor=0.0,
)
_dropped(
    "zero-unlimited",
    "a factor of 0 takes everything, and there are routes",
    lambda d: _zero(d, "unlimited") and bool((d.counts > max(1, d.config.minimum)).any()),
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
        lambda d: d.counts.size == number and bool(_over(d)[-1]),
        ids,
        experts=number,
    )


for _number in (0, 1, 33, 257):
    _of_tokens(_number)
for _number in (1, 2, 60, 257):
    _of_experts(_number)


def _firsts(demand: Demand) -> Ids:
    """Return how many first slots each expert has."""
    firsts = demand.present.copy()
    firsts[:, 1:] = False
    return demand.counted(firsts)


def _lost(demand: Demand) -> Bools:
    lost: Bools = demand.present & ~demand.kept
    return lost


def _partly(demand: Demand) -> Bools:
    """Return which tokens lose some of their routes and keep others, ``[T]``."""
    return np.asarray(_lost(demand).any(axis=1) & demand.kept.any(axis=1))


def _parted(demand: Demand) -> bool:
    return demand.config.order != "free" and bool(_partly(demand).any())


def _zero(demand: Demand, convention: str) -> bool:
    config = demand.config
    return config.factor == 0.0 and config.zero == convention and bool(demand.present.any())

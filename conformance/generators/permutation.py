"""Routes to permute: loads of many shapes, with absent and repeated experts, and smaller ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.permutation import PermutationCase
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.reducer import Reduction
from moe_routing.conformance.generators.routes_smaller import (
    ROUTES_REDUCTIONS,
    ROUTES_SIZES,
    routed,
)
from moe_routing.implementations.permitted import listed
from moe_routing.implementations.permutes import EMPTY_TAKES, Permutes
from moe_routing.reference import PermutationConfig, Routes
from moe_routing.reference.formats import Ids
from moe_routing.reference.routes import ABSENT

LOADS = ("uniform", "skewed", "one", "two", "first", "last", "every-other")
"""Which experts are busy."""

COUNTED = {"multiple": 0, "one-past": 1, "one-short": -1}
"""What counts leave over a multiple of the alignment, by the name of the load."""

OFTEN = ("none", "none", "none", "some", "some", "tokens", "all")
"""Which routes are absent, as often as they are drawn."""

TOKENS = (0, 1, 2, 3, 5, 8, 13, 31, 33, 64, 257)
EXPERTS = (1, 2, 3, 4, 7, 8, 16, 60, 257, 300)
SLOTS = (1, 2, 3, 4, 6, 8)
ALIGNS = (1, 2, 4, 8, 16, 64, 128)


def choose_permutation_case(
    choose: Choose, permutes: Permutes, *, tokens: Sequence[int] = TOKENS
) -> PermutationCase:
    """Return a case that ``permutes`` claims, made by choices."""
    config = PermutationConfig(**choose_options(choose, permutes))
    load = choose("load", (*LOADS, *(COUNTED if config.align > 1 and any(tokens) else ())))
    absence = choose("absence", OFTEN if True in permutes.absent else ("none",))
    repeats = choose("repeats", permutes.repeats)
    top_k = choose("top_k", _within(SLOTS, permutes.max_top_k, config.num_experts))
    most = permutes.max_routes // top_k if permutes.max_routes else None
    number = choose("tokens", _within(tokens, permutes.max_tokens, most))
    rng = np.random.default_rng(choose("seed", range(2**16)))
    if load in COUNTED:
        ids = counted_ids(rng, config, COUNTED[load], _least(permutes.max_tokens, most))
    else:
        ids = loaded_ids(rng, load, (number, top_k), config.num_experts, repeats=repeats)
    return case_of(config, without(rng, ids, absence), recipe=load)


def choose_options(choose: Choose, permutes: Permutes) -> dict[str, Any]:
    """Choose a configuration among those that ``permutes`` claims."""
    claimed = listed(permutes.align)
    known = [n for n in ALIGNS if n in permutes.align]
    align = choose("align", known or claimed or ALIGNS)
    takes = choose("empty_takes", permutes.empty_takes)
    return {
        "num_experts": choose("experts", _within(EXPERTS, permutes.max_experts)),
        "align": align,
        "empty_takes": 0 if takes == EMPTY_TAKES[0] else align,
        "order": choose("order", permutes.order),
    }


def loaded_ids(
    rng: np.random.Generator, load: str, shape: tuple[int, int], experts: int, *, repeats: bool
) -> Ids:
    """Draw the experts of every slot under a load; K is cut to as many as are busy."""
    busy = {
        "one": rng.permutation(experts)[:1],
        "two": rng.permutation(experts)[:2],
        "first": np.arange(1),
        "last": np.arange(experts - 1, experts),
        "every-other": np.arange(0, experts, 2),
    }.get(load, np.arange(experts))
    tokens, top_k = shape
    if repeats:
        return busy[rng.integers(0, busy.size, (tokens, top_k))]
    keys = rng.random((tokens, busy.size))
    if load == "skewed":
        keys = keys ** (1.0 + rng.permutation(busy.size))
    return busy[np.argsort(-keys, axis=1)[:, : min(top_k, busy.size)]]


def counted_ids(
    rng: np.random.Generator, config: PermutationConfig, left: int, most: int | None
) -> Ids:
    """Draw one slot a token so that busy experts have ``left`` over a multiple of the alignment."""
    busy = rng.permutation(config.num_experts)[: rng.integers(1, 6)]
    times = config.align * rng.integers(1, 3, busy.size) + left
    ids = rng.permutation(np.repeat(busy, times))
    return ids[:most, None]


def without(rng: np.random.Generator, ids: Ids, absence: str) -> Ids:
    """Make some slots absent, or all slots of some tokens, or all."""
    if absence == "none":
        return ids
    shape = ids.shape if absence == "some" else (len(ids), 1)
    lost = rng.random(shape) < (1.0 if absence == "all" else 0.4)
    return np.where(lost, ABSENT, ids)


def case_of(config: PermutationConfig, ids: Any, recipe: str = "constructed") -> PermutationCase:
    """Return the case of routes with these experts, whose weights are distinct dyadics."""
    ids = np.asarray(ids, np.int64)
    return PermutationCase(config=config, inputs=routes_of(ids), recipe=recipe)


def routes_of(ids: Ids) -> Routes:
    """Return routes with distinct weights, exact in float32, in no order; absent ones weigh 0."""
    number, odd = ids.size, 2 * (ids.size // 3) + 1
    mixed = (np.arange(number) * odd) % (number + 1) if np.gcd(odd, number + 1) == 1 else None
    order = np.arange(number) if mixed is None else mixed
    weights = ((order + 1) / 2.0 ** max(1, int(number + 1).bit_length())).astype(np.float32)
    weights = np.where(ids == ABSENT, np.float32(0), weights.reshape(ids.shape))
    return Routes(expert_ids=ids, weights=weights)


def to_the_next(case: PermutationCase) -> PermutationCase:
    """Return the case whose routes go to the next expert each."""
    ids = case.inputs.expert_ids
    moved = np.where(ids == ABSENT, ABSENT, (ids + 1) % case.config.num_experts)
    routes = Routes(expert_ids=moved, weights=case.inputs.weights)
    return replace(case, inputs=routes)


def _within(sizes: Sequence[int], *limits: int | None) -> list[int]:
    most = _least(*limits)
    return [n for n in sizes if most is None or n <= most] or [most or 0]


def _least(*limits: int | None) -> int | None:
    return min((n for n in limits if n is not None), default=None)


# Smaller cases.


def _options(case: PermutationCase) -> Iterator[PermutationCase]:
    """Yield the case with a smaller alignment, and with nothing for an empty expert."""
    config = case.config
    for align in (n for n in ALIGNS if n < config.align):
        takes = align if config.empty_takes else 0
        yield replace(case, config=replace(config, align=align, empty_takes=takes))
    if config.empty_takes:
        yield replace(case, config=replace(config, empty_takes=0))


def _weights(case: PermutationCase) -> Iterator[PermutationCase]:
    """Yield the case with the plainest weights."""
    ids = case.inputs.expert_ids
    numbers = (1 + np.arange(ids.size)).reshape(ids.shape) / 2.0 ** ids.size.bit_length()
    plain = np.where(ids == ABSENT, 0.0, numbers).astype(np.float32)
    if ids.size and not np.array_equal(plain, case.inputs.weights):
        yield routed(case, ids, plain)


PERMUTATION_REDUCTIONS: tuple[Reduction, ...] = (*ROUTES_REDUCTIONS, _options, _weights)
"""The reductions of a permutation case, in the order in which they are tried."""

PERMUTATION_SIZES = ROUTES_SIZES
"""The sizes of a permutation case."""

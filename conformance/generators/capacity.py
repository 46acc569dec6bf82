"""Routes for experts of a capacity: loads, factors and weights of many kinds, and smaller ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.capacity import CapacityCase
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.permutation import LOADS, OFTEN, loaded_ids, without
from moe_routing.conformance.generators.reducer import Reduction
from moe_routing.conformance.generators.routes_smaller import (
    ROUTES_REDUCTIONS,
    ROUTES_SIZES,
    routed,
)
from moe_routing.implementations.drops import Drops
from moe_routing.implementations.permitted import AnyValue, listed
from moe_routing.reference import CapacityConfig, Routes
from moe_routing.reference.capacity import CAPACITY_WORDS
from moe_routing.reference.formats import Floats, Ids
from moe_routing.reference.routes import ABSENT

TOKENS = (0, 1, 2, 3, 5, 8, 13, 33, 64, 257)
EXPERTS = (1, 2, 3, 4, 5, 7, 8, 16, 60, 257)
SLOTS = (1, 2, 3, 4, 6, 8)
FACTORS = (1.0, 0.5, 1.25, 0.75, 1.1, 0.3, 2.0, 0.0, 0.25, 6.0)
WHOLE_FACTORS = (1.0, 2.0, 3.0, 5.0, 0.0, 8.0, 300.0)
MINIMUMS = (0, 0, 0, 1, 2, 4, 300)
WEIGHTS = ("distinct", "distinct", "tied")

_UNITS = 2**14
"""The weights of a token that sum to 1 are multiples of one over this."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The calls that a clause draws: factors, where they are claimed, and numbers of tokens."""

    factors: tuple[float, ...] | None = None
    tokens: tuple[int, ...] = TOKENS


def choose_capacity_case(
    choose: Choose, drops: Drops, wanted: Wanted | None = None
) -> CapacityCase:
    """Return a case that ``drops`` claims, made by choices."""
    wanted = wanted or Wanted()
    config = CapacityConfig(**_options(choose, drops, wanted))
    absence = choose("absence", OFTEN if True in drops.absent else ("none",))
    slots = [k for k in SLOTS if k in drops.top_k] or _some(drops.top_k)
    top_k = choose("top_k", [k for k in slots if k <= config.num_experts] or slots[:1])
    number = choose("tokens", _within(wanted.tokens, drops.max_tokens))
    kind, sums = choose("weights", WEIGHTS), choose("sums", drops.sums)
    rng = np.random.default_rng(choose("seed", range(2**16)))
    load = choose("load", LOADS)
    ids = loaded_ids(rng, load, (number, top_k), config.num_experts, repeats=False)
    if ids.shape[1] not in drops.top_k:  # fewer experts are busy than a token has slots
        ids = loaded_ids(rng, "uniform", (number, top_k), config.num_experts, repeats=False)
    ids = without(rng, ids, absence)
    weights = drawn_weights(rng, ids, kind, sums)
    return case_of(config, ids, weights, recipe=load)


def _options(choose: Choose, drops: Drops, wanted: Wanted) -> dict[str, Any]:
    """Choose a configuration among those that ``drops`` claims."""
    words = {name: choose(name, getattr(drops, name)) for name in CAPACITY_WORDS}
    usual = WHOLE_FACTORS if words["share"] == "one" else FACTORS
    factors = [f for f in wanted.factors or usual if f in drops.factor and _whole(words, f)]
    return {
        **words,
        "num_experts": choose("experts", _experts(drops)),
        "factor": choose("factor", factors or [f for f in _factors(drops) if _whole(words, f)]),
        "minimum": choose("minimum", [n for n in MINIMUMS if n in drops.minimum] or _least(drops)),
    }


def _whole(words: dict[str, Any], factor: float) -> bool:
    return words["share"] != "one" or factor == int(factor)


def _factors(drops: Drops) -> Sequence[float]:
    return listed(drops.factor) or FACTORS


def _least(drops: Drops) -> Sequence[int]:
    return listed(drops.minimum) or (0,)


def _some(top_k: tuple[int, ...] | range | AnyValue) -> list[int]:
    """Return a few of the numbers of slots that are listed, none of which is usual."""
    return list((listed(top_k) or SLOTS)[:4])


def _experts(drops: Drops) -> list[int]:
    """Return numbers of experts of which a token can choose as many as it must."""
    least = min([k for k in SLOTS if k in drops.top_k] or _some(drops.top_k))
    return [n for n in _within(EXPERTS, drops.max_experts) if n >= least] or [least]


def _within(sizes: Sequence[int], most: int | None) -> list[int]:
    return [n for n in sizes if most is None or n <= most] or [most or 0]


def drawn_weights(rng: np.random.Generator, ids: Ids, kind: str, sums: str) -> Floats:
    """Draw weights above 0, falling along each row: exact in float32, or tied."""
    there = ids != ABSENT
    if sums == "one":
        return _summing_to_one(rng, there)
    size = ids.size
    values: Floats
    if kind == "tied":
        falling = np.arange(ids.shape[1], 0, -1)  # so that all orders take them
        values = np.asarray(rng.integers(1, 4, ids.shape) / 4.0 + falling, np.float64)
    else:
        numbers = 1 + rng.permutation(size).reshape(ids.shape)
        values = np.asarray(-np.sort(-numbers, axis=1) / 2.0 ** size.bit_length(), np.float64)
    return np.where(there, values, 0.0)


def _summing_to_one(rng: np.random.Generator, there: Any) -> Floats:
    """Draw rows that sum to exactly 1 over the slots that are there, all different in a row."""
    parts = rng.integers(1, _UNITS // (8 * there.shape[1]), there.shape)
    parts = -np.sort(-parts, axis=1) * 4 + np.arange(there.shape[1], 0, -1)
    parts = np.where(there, parts, 0)
    first = there.argmax(axis=1)
    rows = np.arange(len(parts))
    parts[rows, first] += np.where(there.any(axis=1), _UNITS - parts.sum(axis=1), 0)
    return parts / _UNITS


def case_of(
    config: CapacityConfig, ids: Any, weights: Any = None, recipe: str = "constructed"
) -> CapacityCase:
    """Return the case of routes with these experts; without ``weights``, with plain ones."""
    ids = np.asarray(ids, np.int64)
    given = plain_weights(ids) if weights is None else np.asarray(weights)
    routes = Routes(expert_ids=ids, weights=given.astype(np.float32))
    return CapacityCase(config=config, inputs=routes, recipe=recipe)


def plain_weights(ids: Ids) -> Floats:
    """Return distinct weights: they fall along a row, and rise from token to token."""
    tokens, top_k = ids.shape
    number = np.arange(tokens)[:, None] + 1 + tokens * np.arange(top_k - 1, -1, -1)
    return np.where(ids == ABSENT, 0.0, number / 2.0 ** (int(ids.size).bit_length()))


# Smaller cases.


def _plainer(case: CapacityCase) -> Iterator[CapacityCase]:
    """Yield the case with a factor of 1, then without a minimum."""
    if case.config.factor != 1.0:
        yield replace(case, config=replace(case.config, factor=1.0))
    if case.config.minimum:
        yield replace(case, config=replace(case.config, minimum=0))


def _plain(case: CapacityCase) -> Iterator[CapacityCase]:
    """Yield the case with the plainest weights."""
    plain = plain_weights(case.inputs.expert_ids).astype(np.float32)
    if not np.array_equal(plain, case.inputs.weights):
        yield routed(case, case.inputs.expert_ids, plain)


CAPACITY_REDUCTIONS: tuple[Reduction, ...] = (*ROUTES_REDUCTIONS, _plainer, _plain)
"""The reductions of a capacity case, in the order in which they are tried."""

CAPACITY_SIZES = ROUTES_SIZES
"""The sizes of a capacity case."""

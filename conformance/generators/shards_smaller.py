"""Smaller calls of shards: fewer ranks, experts in their plain places, then as of experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np

from moe_routing.conformance.calls.memory import with_changes
from moe_routing.conformance.calls.shards import ShardsCase
from moe_routing.conformance.generators.experts_smaller import (
    EXPERTS_SIZES,
    fewer,
    keep,
    plainer,
    without_biases,
)
from moe_routing.conformance.generators.reducer import Reduction, attempt, subsets
from moe_routing.conformance.generators.sizes import Size
from moe_routing.reference import Placement, even_placement
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.formats import Ids
from moe_routing.reference.routes import ABSENT

CaseT = TypeVar("CaseT", bound=ShardsCase)


def placed_at(case: CaseT, placement: Placement) -> CaseT:
    """Return the case with its experts in other places. Errors: ``ValueError``."""
    changes = {name: getattr(placement, name) for name in ("rank_of", "logical_of", "num_ranks")}
    return replace(case, inputs=with_changes(case.inputs, **changes))


def keep_ranks(case: CaseT, kept: Ids) -> CaseT:
    """Return the case with these ranks; the last of them takes what the others had alone."""
    old, number = case.inputs.placement, np.full(case.inputs.num_ranks, len(kept) - 1)
    number[kept] = np.arange(len(kept))
    pairs = np.unique(np.stack([number[old.rank_of], old.logical_of]), axis=1)
    placement = Placement(rank_of=pairs[0], logical_of=pairs[1], num_ranks=len(kept))
    return placed_at(case, placement)


def keep_placed(case: ShardsCase, kept: Ids) -> ShardsCase:
    """Return the case with these experts where they were, and the tokens that go to no other."""
    inputs, old = case.inputs, case.inputs.placement
    number = np.full(case.config.num_experts + 1, ABSENT)
    number[kept] = np.arange(len(kept))
    ids = inputs.expert_ids
    stays = ((ids == ABSENT) | np.isin(ids, kept)).all(axis=1)
    there = np.isin(old.logical_of, kept)
    arrays = {n: each[kept] for n, each in inputs.arrays().items() if n in OF_EXPERTS}
    staying = keep(case, "tokens", np.flatnonzero(stays)).inputs
    fewer_inputs = with_changes(
        staying,
        expert_ids=number[staying.expert_ids],
        rank_of=old.rank_of[there],
        logical_of=number[old.logical_of[there]],
        **arrays,
    )
    config = replace(case.config, num_experts=len(kept))
    return replace(case, config=config, inputs=fewer_inputs)


def fewer_ranks(case: ShardsCase) -> Iterator[ShardsCase]:
    """Yield the case with some of its ranks."""
    for kept in subsets(case.inputs.num_ranks):
        yield from attempt(keep_ranks, case, kept)


def plain_places(case: ShardsCase) -> Iterator[ShardsCase]:
    """Yield the case with each expert in one place, and in even blocks."""
    placement = case.inputs.placement
    if (placement.replicas > 1).any():
        first = np.sort(np.unique(placement.logical_of, return_index=True)[1])
        yield placed_at(
            case,
            Placement(
                rank_of=placement.rank_of[first],
                logical_of=placement.logical_of[first],
                num_ranks=placement.num_ranks,
            ),
        )
    even = even_placement(case.config.num_experts, placement.num_ranks)
    if not np.array_equal(even.rank_of, placement.rank_of):
        yield placed_at(case, even)


def fewer_placed(case: ShardsCase) -> Iterator[ShardsCase]:
    """Yield the case with some of its experts, where they were."""
    used = np.unique(case.inputs.expert_ids)
    used = used[used != ABSENT]
    if 0 < used.size < case.config.num_experts:
        yield keep_placed(case, used)
    for kept in subsets(case.config.num_experts):
        yield from attempt(keep_placed, case, kept)


SHARDS_REDUCTIONS: tuple[Reduction, ...] = (
    fewer("hidden"),
    fewer("width"),
    fewer("tokens"),
    fewer("slots"),
    fewer_ranks,
    plain_places,
    fewer_placed,
    without_biases,
    plainer,
)
"""The reductions of a case of shards, in the order in which they are tried."""

SHARDS_SIZES = (
    *(size for size in EXPERTS_SIZES if size.name != "E"),
    Size(name="E", count=lambda case: case.config.num_experts, usual=4, keep=keep_placed),
    Size(name="R", count=lambda case: case.inputs.num_ranks, usual=2, keep=keep_ranks),
)
"""The sizes of a case of shards that a failure may begin at."""

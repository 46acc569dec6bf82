"""Calls of shards: calls of experts, and placements of many kinds, made from a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.calls.shards import ShardsCase, ShardsInputs
from moe_routing.conformance.generators.axes import Choose
from moe_routing.conformance.generators.experts import Wishes, choose_experts_case
from moe_routing.implementations import Capabilities
from moe_routing.implementations.shards import PLACEMENTS, Shards
from moe_routing.reference import Placement, even_placement
from moe_routing.reference.formats import Ids

RANKS = (1, 2, 3, 4, 5, 8)
"""The numbers of ranks that are drawn."""


def choose_shards_case(
    choose: Choose, capabilities: Capabilities, wishes: Wishes | None = None
) -> ShardsCase:
    """Return a case that ``capabilities`` claim, made by choices."""
    claimed = capabilities.shards
    wishes = _divisible(wishes or Wishes(), claimed)
    case = choose_experts_case(choose, capabilities, wishes)
    count = case.config.num_experts
    kinds = PLACEMENTS[: PLACEMENTS.index(claimed.placements) + 1]
    wanted = [each for each in wishes.offers.get("placement", ()) if each in kinds]
    kind = choose("placement", wanted or kinds)
    offered = _offered(wishes, claimed)
    fitting = [n for n in offered if kind != "even" or count % n == 0]
    rng = np.random.default_rng(choose("places", range(2**16)))
    if not fitting and claimed.num_ranks is not None:
        fitting, kind = offered, kinds[-1]
    placement = placed(rng, kind, count, choose("ranks", fitting or [1]))
    if kind == "mapped" and claimed.replicas and choose("replicas", (False, True)):
        placement = replicate(rng, placement)
    return sharded(case, placement)


def _divisible(wishes: Wishes, claimed: Shards) -> Wishes:
    """Return the wishes with numbers of experts that so many ranks, which is claimed, divide."""
    ranks = claimed.num_ranks
    if ranks is None or claimed.placements != "even":
        return wishes
    wanted = [n for n in wishes.offers.get("experts", ()) if n % ranks == 0]
    return replace(wishes, offers={**wishes.offers, "experts": wanted or [ranks, 2 * ranks]})


def _offered(wishes: Wishes, claimed: Shards) -> list[int]:
    """Return the numbers of ranks to choose from."""
    if claimed.num_ranks is not None:
        return [claimed.num_ranks]
    return [n for n in wishes.offers.get("ranks", RANKS) if n <= (claimed.max_ranks or n)]


def placed(rng: np.random.Generator, kind: str, experts: int, ranks: int) -> Placement:
    """Return a placement of a kind: in even blocks, in blocks of any sizes, or anywhere."""
    if kind == "even":
        return even_placement(experts, ranks)
    rank_of: Ids = rng.integers(0, ranks, experts)
    if kind == "blocks":
        return Placement(rank_of=np.sort(rank_of), logical_of=np.arange(experts), num_ranks=ranks)
    return Placement(rank_of=rank_of, logical_of=rng.permutation(experts), num_ranks=ranks)


def replicate(rng: np.random.Generator, placement: Placement) -> Placement:
    """Return the placement with some experts on several ranks, where there are several."""
    extra = rng.integers(0, placement.num_ranks, placement.num_experts)
    rank_of = np.concatenate([placement.rank_of, extra])
    logical_of = np.concatenate([placement.logical_of, np.arange(placement.num_experts)])
    places = rank_of * placement.num_experts + logical_of
    kept = np.sort(np.unique(places, return_index=True)[1])
    return Placement(
        rank_of=rank_of[kept], logical_of=logical_of[kept], num_ranks=placement.num_ranks
    )


def sharded(case: ExpertsCase, placement: Placement) -> ShardsCase:
    """Return the call of experts, spread over ranks."""
    where: dict[str, Any] = {
        name: getattr(placement, name) for name in ("rank_of", "logical_of", "num_ranks")
    }
    arrays: dict[str, Any] = case.inputs.arrays()
    inputs = ShardsInputs(dtype=case.dtype, **arrays, **where)
    return ShardsCase(config=case.config, inputs=inputs, recipe=case.recipe)

"""Shards: experts spread over ranks, and the part of a layer's output that each rank answers.

Source: ``docs/spec/shards.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moe_routing.reference.arrays import freeze
from moe_routing.reference.checks import require_count
from moe_routing.reference.experts import OF_EXPERTS, ExpertsConfig, ExpertsInputs, experts
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.routes import ABSENT, Routes

_SHAPES = {"rank_of": "P", "logical_of": "P"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Where experts live: P physical experts on ``num_ranks`` ranks.

    ``rank_of [P]`` int64 is the rank of each, ``logical_of [P]`` int64 the expert that it is. One
    expert may be several physical ones, its *replicas*, on ranks that differ; a rank may have
    none. Errors: ``ValueError`` naming the array, the first bad value and the rule.
    """

    rank_of: Ids
    logical_of: Ids
    num_ranks: int

    def __post_init__(self) -> None:
        require_count("num_ranks", self.num_ranks, at_least=1)
        freeze(self, _SHAPES, integers=_SHAPES)
        for name, most in (("rank_of", self.num_ranks), ("logical_of", self.rank_of.size)):
            values = getattr(self, name)
            wrong = (values < 0) | (values >= most)
            if wrong.any():
                place = int(np.flatnonzero(wrong)[0])
                raise ValueError(
                    f"Expected {name} in 0..{most - 1} but got {values[place]} at [{place}]"
                )
        if (missing := np.setdiff1d(np.arange(self.num_experts), self.logical_of)).size:
            raise ValueError(f"Expected every expert in logical_of but {missing[0]} is nowhere")
        pairs = self.rank_of * self.num_experts + self.logical_of
        if np.unique(pairs).size < pairs.size:
            raise ValueError("Cannot have two replicas of an expert on one rank")

    @property
    def num_experts(self) -> int:
        """E, the number of logical experts."""
        return int(self.logical_of.max()) + 1

    @property
    def replicas(self) -> Ids:
        """How many physical experts each logical one is, ``[E]``."""
        return np.bincount(self.logical_of)

    def local(self, rank: int) -> Ids:
        """Return the logical experts of a rank, in the order in which it holds them."""
        local: Ids = self.logical_of[self.rank_of == rank]
        return local

    def holds(self, rank: int) -> Bools:
        """Return whether a rank has each logical expert, ``[E]``."""
        return np.isin(np.arange(self.num_experts), self.local(rank))


def even_placement(num_experts: int, num_ranks: int) -> Placement:
    """Return the usual placement: experts in order, in blocks; the first have the remainder.

    Errors: ``ValueError`` where a size is not positive.
    """
    require_count("num_experts", num_experts, at_least=1)
    require_count("num_ranks", num_ranks, at_least=1)
    blocks = np.array_split(np.arange(num_experts), num_ranks)
    ranks = np.repeat(np.arange(num_ranks), [block.size for block in blocks])
    return Placement(rank_of=ranks, logical_of=np.arange(num_experts), num_ranks=num_ranks)


def computed_by(routes: Routes, placement: Placement) -> Ids:
    """Return the rank that computes each route, ``[T, K]``; -1 where the route is absent.

    The replicas of an expert take the tokens in turn. Which of them does is free: that exactly
    one does is the rule.
    """
    ranks = np.full(routes.expert_ids.shape, ABSENT)
    for expert in np.unique(routes.expert_ids[routes.expert_ids != ABSENT]):
        homes = placement.rank_of[placement.logical_of == expert]
        tokens, slots = np.nonzero(routes.expert_ids == expert)
        ranks[tokens, slots] = homes[tokens % homes.size]
    return ranks


def shard(config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int) -> Floats:
    """Return what one rank adds to the output of a layer, ``[T, H]`` float64.

    Over all ranks the parts add up to ``experts(config, inputs)``. Errors: ``ValueError`` where
    the inputs do not fit the configuration or the placement.
    """
    _check(config, placement, rank)
    own = computed_by(inputs.routes, placement) == rank
    if not own.any():
        return np.zeros(inputs.hidden.shape)
    return experts(config, _masked(inputs, own))


def local_call(
    config: ExpertsConfig, inputs: ExpertsInputs, placement: Placement, rank: int
) -> tuple[ExpertsConfig, ExpertsInputs] | None:
    """Return the call of ``experts`` that is a rank's part, or None where it has no expert.

    Experts are numbered as the rank holds them, and a route that another rank computes is
    absent. Errors: as ``shard``.
    """
    _check(config, placement, rank)
    local = placement.local(rank)
    if not local.size:
        return None
    number = np.full(config.num_experts + 1, ABSENT)  # the last for absent routes
    number[local] = np.arange(local.size)
    own = computed_by(inputs.routes, placement) == rank
    masked = _masked(inputs, own)
    arrays: dict[str, Any] = {
        n: each[local] for n, each in inputs.arrays().items() if n in OF_EXPERTS
    }
    moved = replace(masked, expert_ids=number[masked.expert_ids], **arrays)
    return replace(config, num_experts=int(local.size)), moved


def _masked(inputs: ExpertsInputs, own: Bools) -> ExpertsInputs:
    """Return the inputs with these routes alone present."""
    ids = np.where(own, inputs.expert_ids, ABSENT)
    return replace(inputs, expert_ids=ids, weights=np.where(own, inputs.weights, np.float32(0)))


def _check(config: ExpertsConfig, placement: Placement, rank: int) -> None:
    if placement.num_experts != config.num_experts:
        raise ValueError(
            f"Expected a placement of num_experts={config.num_experts} but got "
            f"{placement.num_experts}"
        )
    if not 0 <= rank < placement.num_ranks:
        raise ValueError(f"Expected rank in 0..{placement.num_ranks - 1} but got {rank}")

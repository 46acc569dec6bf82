"""Which parts of a layer's output rounding can explain, rank by rank (docs/spec/shards.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from moe_routing.conformance.judge.balls import Ball
from moe_routing.conformance.judge.experts import Layer
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement
from moe_routing.reference.formats import Bools, Ids
from moe_routing.reference.routes import ABSENT


@dataclass(frozen=True, eq=False)
class Sharded:
    """What follows from a call of a layer whose experts are spread over ranks."""

    config: ExpertsConfig
    inputs: ExpertsInputs
    placement: Placement
    products: str = "float32"

    @cached_property
    def layer(self) -> Layer:
        """The same call in one place."""
        return Layer(self.config, self.inputs, self.products)

    @property
    def ranks(self) -> range:
        """The ranks, in order."""
        return range(self.placement.num_ranks)

    @property
    def sum(self) -> Ball:
        """The permitted sums of what all ranks answer, ``[T, H]``, added without rounding.

        Those of the layer: a rank's part is a partial sum of it, which may be stored there, too.
        """
        return self.layer.output

    @cached_property
    def settled(self) -> Bools:
        """Whether the rank of a route is settled: it is present, and its expert in one place."""
        ids = self.inputs.expert_ids
        found: Bools = (ids != ABSENT) & (self.placement.replicas[ids] == 1)
        return found

    def may_compute(self, rank: int) -> Bools:
        """Return whether a rank has the expert of each route, ``[T, K]``; not where absent."""
        ids = self.inputs.expert_ids
        found: Bools = (ids != ABSENT) & self.placement.holds(rank)[ids]
        return found

    def decided(self, rank: int) -> Bools:
        """Return the tokens ``[T]`` of which it is settled what a rank computes."""
        return np.asarray((~self.may_compute(rank) | self.settled).all(axis=1))

    def part(self, rank: int) -> Layer:
        """Return the call of a rank's own experts, which says what it may answer.

        Of tokens that are decided; the weights of other routes are 0.
        """
        own = self.may_compute(rank)
        inputs = self.inputs
        ids = np.where(own, inputs.expert_ids, ABSENT)
        weights = np.where(own, inputs.weights, np.float32(0))
        local = replace(inputs, expert_ids=ids, weights=weights)
        return Layer(self.config, local, self.products)

    @cached_property
    def counts(self) -> Ids:
        """The routes that each rank may compute, ``[R]``."""
        return np.array([int(self.may_compute(rank).sum()) for rank in self.ranks])

    @cached_property
    def moved(self) -> bool:
        """Whether some rank numbers an expert otherwise than the layer does."""
        local = [self.placement.local(rank) for rank in self.ranks]
        return any((each != np.arange(each.size) + (each[:1].sum())).any() for each in local)

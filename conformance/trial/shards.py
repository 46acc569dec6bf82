"""The trial of a layer whose experts are spread over ranks: each rank is called in its turn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from moe_routing.conformance.calls.memory import with_fresh_arrays
from moe_routing.conformance.calls.shards import ShardsCase
from moe_routing.conformance.judge.experts import Layer
from moe_routing.conformance.judge.shards import Sharded
from moe_routing.conformance.trial.base import BaseTrial
from moe_routing.conformance.trial.boundary import Malformed
from moe_routing.conformance.trial.call import called
from moe_routing.conformance.trial.experts import read
from moe_routing.reference.formats import Bools, Floats


@dataclass(frozen=True, eq=False)
class ShardsTrial(BaseTrial[ShardsCase]):
    """One call of each rank, for one adapter."""

    method: str = "shard"

    @property
    def sharded(self) -> Sharded:
        """What follows from the call, under the products that the adapter claims."""
        return self.once(sharded_of, self.capabilities.computes.products)

    @property
    def facts(self) -> Sharded:
        """The value that events are read from."""
        return self.once(sharded_of)

    @cached_property
    def answers(self) -> list[Floats]:
        """What each rank answers, ``[T, H]`` in float64. Errors: ``Raised``, ``Malformed``."""
        return [self._answer(rank) for rank in self.sharded.ranks]

    def _answer(self, rank: int) -> Floats:
        case = self.case.at(rank)
        native = called(self.adapter, self.method, case, with_fresh_arrays(case.inputs)).native
        try:
            return read(native, cast(Any, case))
        except Malformed as error:
            raise Malformed(f"rank {rank}: {error}") from error

    @cached_property
    def output(self) -> Floats:
        """The sum of all parts, ``[T, H]``. Errors: as ``answers``."""
        with np.errstate(all="ignore"):
            total: Floats = np.sum(self.answers, axis=0)
        return total

    def wrong(self, rank: int) -> Bools:
        """Return which of a rank's answers, ``[T, H]``, rounding cannot explain."""
        sharded = self.sharded
        right = self.part(rank).permits(self.answers[rank])
        found: Bools = ~right & sharded.decided(rank)[:, None]
        return found

    def part(self, rank: int) -> Layer:
        """Return the call that says what a rank may answer, where that is decided."""
        return self.once(_part_of, rank, self.capabilities.computes.products)


def sharded_of(case: ShardsCase, products: str = "float32") -> Sharded:
    """Return what follows from a case."""
    return Sharded(case.config, case.inputs.whole, case.inputs.placement, products)


def _part_of(case: ShardsCase, rank: int, products: str) -> Layer:
    return sharded_of(case, products).part(rank)

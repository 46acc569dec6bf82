"""A case of ranks: a call of experts spread over ranks, each of which has tokens of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.experts import ExpertsCase
from moe_routing.conformance.calls.shards import ShardsCase, ShardsInputs
from moe_routing.reference import ExpertsInputs
from moe_routing.reference.arrays import check_exact, check_shapes, freeze
from moe_routing.reference.experts import OF_EXPERTS
from moe_routing.reference.formats import Bools, Ids

EVERY = -1
"""What stands for all ranks, where each of them has the same tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RanksInputs(ShardsInputs):
    """The arrays of a call of shards, and ``home [T]``, the rank that has each token.

    A home of -1 is that of a token that every rank has: then all of them are. Errors:
    ``ValueError``, as ``ShardsInputs``.
    """

    home: Ids

    def __post_init__(self) -> None:
        super().__post_init__()
        freeze(self, {"home": "T"}, integers=("home",))
        shapes = {"hidden": "TH", "home": "T"}
        check_shapes({"hidden": self.hidden, "home": self.home}, shapes)
        wrong = (self.home < EVERY) | (self.home >= self.num_ranks)
        if wrong.any():
            found = self.home[wrong][0]
            raise ValueError(f"Expected home in -1..{self.num_ranks - 1} but got {found}")
        if self.shared and (self.home != EVERY).any():
            raise ValueError("Expected home to be -1 everywhere or nowhere: all ranks have a token")

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        return {**super().arrays(), "home": self.home}

    @property
    def shared(self) -> bool:
        """Whether every rank has all tokens."""
        return bool((self.home == EVERY).any())

    def own(self, rank: int) -> Bools:
        """Return which tokens a rank has, ``[T]``."""
        return np.asarray((self.home == rank) | (self.home == EVERY))

    @property
    def batches(self) -> Ids:
        """The number of tokens of each rank, ``[R]``."""
        return np.array([int(self.own(rank).sum()) for rank in range(self.num_ranks)])

    def batch(self, rank: int) -> ExpertsInputs:
        """Return what a rank is given: its tokens, and NaN in the experts that it has not."""
        own, elsewhere = self.own(rank), ~self.placement.holds(rank)
        arrays: dict[str, Any] = {}
        for name, array in self.whole.arrays().items():
            if name in OF_EXPERTS:
                arrays[name] = array.copy()
                arrays[name][elsewhere] = np.nan
            else:
                arrays[name] = array[own]
        return ExpertsInputs(dtype=self.dtype, **arrays)


@dataclass(frozen=True, kw_only=True, eq=False)
class RanksCase(ShardsCase):
    """A call of ``on_ranks`` to check against the reference."""

    kind: ClassVar[str] = "ranks"

    inputs: RanksInputs

    def of_rank(self, rank: int) -> ExpertsCase:
        """Return the call of experts that a rank's answer has the shape of."""
        return ExpertsCase(config=self.config, inputs=self.inputs.batch(rank), recipe=self.recipe)

    def arguments(self, inputs: Any) -> tuple[Any, ...]:
        """Return what all ranks are called with: the inputs of each."""
        batches = [inputs.batch(rank) for rank in range(inputs.num_ranks)]
        return self.config, batches, inputs.placement


@dataclass(frozen=True, kw_only=True, eq=False)
class RankGradientInputs(RanksInputs):
    """The inputs of a call of ranks, and the cotangent ``[T, H]`` of its output."""

    cotangent: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        super().__post_init__()
        freeze(self, {"cotangent": "TH"})
        shapes = {"hidden": "TH", "cotangent": "TH"}
        check_shapes({"hidden": self.hidden, "cotangent": self.cotangent}, shapes)
        check_exact("cotangent", self.cotangent, self.dtype)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        return {**super().arrays(), "cotangent": self.cotangent}


@dataclass(frozen=True, kw_only=True, eq=False)
class RankGradientCase(RanksCase):
    """A call of ``gradients_on_ranks`` to check against the reference."""

    kind: ClassVar[str] = "rank-gradients"

    inputs: RankGradientInputs

    def arguments(self, inputs: Any) -> tuple[Any, ...]:
        """Return what all ranks are called with: the inputs and the cotangents of each."""
        ranks = range(inputs.num_ranks)
        cotangents = [inputs.cotangent[inputs.own(rank)] for rank in ranks]
        return (*super().arguments(inputs), cotangents)


def at_home(case: ShardsCase, home: Ids) -> RanksCase:
    """Return a call of shards whose tokens are the ranks' own. Errors: ``ValueError``."""
    inputs = RanksInputs(**_fields(case), home=home)
    return RanksCase(config=case.config, inputs=inputs, recipe=case.recipe)


def with_cotangent(case: RanksCase, cotangent: npt.NDArray[np.float32]) -> RankGradientCase:
    """Return a call of ranks with a cotangent of its output. Errors: ``ValueError``."""
    inputs = RankGradientInputs(**_fields(case), cotangent=cotangent)
    return RankGradientCase(config=case.config, inputs=inputs, recipe=case.recipe)


def _fields(case: ShardsCase) -> dict[str, Any]:
    inputs = case.inputs
    return {"dtype": inputs.dtype, "num_ranks": inputs.num_ranks, **inputs.arrays()}

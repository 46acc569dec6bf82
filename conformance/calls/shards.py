"""A case of shards: a call of experts, and the ranks that they are spread over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from moe_routing.conformance.calls.case import AnyCase
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement
from moe_routing.reference.experts import OF_EXPERTS

_PLACED = ("rank_of", "logical_of")


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardsInputs(ExpertsInputs):
    """The arrays of a call of experts, and of its placement. Errors: as for both."""

    rank_of: npt.NDArray[np.int64]
    logical_of: npt.NDArray[np.int64]
    num_ranks: int

    def __post_init__(self) -> None:
        super().__post_init__()
        placed = self.placement
        if placed.num_experts != self.num_experts:
            raise ValueError(
                f"Expected logical_of to place {self.num_experts} experts but got "
                f"{placed.num_experts}"
            )
        for name in _PLACED:
            object.__setattr__(self, name, getattr(placed, name))

    @property
    def placement(self) -> Placement:
        """Where the experts live."""
        ranks = {name: getattr(self, name) for name in _PLACED}
        return Placement(num_ranks=self.num_ranks, **ranks)

    @property
    def whole(self) -> ExpertsInputs:
        """The call of all experts, in one place."""
        return ExpertsInputs(dtype=self.dtype, **super().arrays())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are present, by field name."""
        return {**super().arrays(), **{name: getattr(self, name) for name in _PLACED}}


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardsCase(AnyCase):
    """Calls of ``shard`` to check against the reference: one for each rank, of which this is one.

    What a rank is given holds NaN in the experts that it does not have.
    """

    kind: ClassVar[str] = "shards"

    config: ExpertsConfig
    inputs: ShardsInputs
    rank: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by letter; ``F`` is the width of an expert, ``R`` the number of ranks."""
        inputs = self.inputs
        return {
            "T": inputs.num_tokens,
            "E": inputs.num_experts,
            "K": inputs.top_k,
            "H": inputs.hidden_size,
            "F": inputs.width,
            "R": inputs.num_ranks,
        }

    def at(self, rank: int) -> ShardsCase:
        """Return the call of a rank."""
        return replace(self, rank=rank)

    def arguments(self, inputs: ShardsInputs) -> tuple[Any, ...]:
        """Return what the rank's call is made with."""
        placement = inputs.placement
        elsewhere = ~placement.holds(self.rank)
        arrays = {n: each for n, each in inputs.arrays().items() if n not in _PLACED}
        for name in OF_EXPERTS:
            if name in arrays:
                held = arrays[name].copy()
                held[elsewhere] = np.nan
                arrays[name] = held
        return self.config, ExpertsInputs(dtype=inputs.dtype, **arrays), placement, self.rank

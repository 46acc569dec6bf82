"""An adapter of one rank, as the suite calls it: all ranks at once, and one answer of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.implementations.capabilities import Capabilities
from moe_routing.implementations.loading import AdapterError
from moe_routing.implementations.ranks.running import RunningRanks
from moe_routing.reference import ExpertsConfig, ExpertsInputs, Placement

METHODS = {"on_rank": "on_ranks", "rank_gradients": "gradients_on_ranks"}
"""The methods of an adapter of one rank, and those through which the suite calls all ranks."""


class OnRanks(RunningRanks):
    """The ranks of an adapter as one adapter, which claims what each rank does, on so many."""

    def __init__(self, reference: str, ranks: int, **settings: Any) -> None:
        super().__init__(reference, ranks, **settings)
        self.name, self.wraps, claimed, methods = self.head
        self.methods = tuple(METHODS[name] for name in methods)
        self._capabilities = of_so_many(reference, claimed, ranks)

    def capabilities(self) -> Capabilities:
        """Claim what a rank's adapter claims, on so many ranks."""
        return self._capabilities

    def on_ranks(
        self, config: ExpertsConfig, batches: Sequence[ExpertsInputs], placement: Placement
    ) -> list[Any]:
        """Return what each rank answers of its own tokens. Errors: ``BackendLost``."""
        calls = [(config, each, placement, rank) for rank, each in enumerate(batches)]
        return self.called("on_rank", calls)

    def gradients_on_ranks(
        self,
        config: ExpertsConfig,
        batches: Sequence[ExpertsInputs],
        placement: Placement,
        cotangents: Sequence[npt.NDArray[np.float32]],
    ) -> list[Any]:
        """Return each rank's gradients. Errors: ``BackendLost``."""
        calls = [
            (config, each, placement, rank, cotangents[rank]) for rank, each in enumerate(batches)
        ]
        return self.called("rank_gradients", calls)


def of_so_many(reference: str, claimed: Capabilities, ranks: int) -> Capabilities:
    """Return capabilities for exactly so many ranks. Errors: ``AdapterError``."""
    most = claimed.shards.max_ranks
    if most is not None and ranks > most:
        raise AdapterError(f"{reference} runs on up to {most} ranks: --ranks {ranks} is more")
    return replace(claimed, shards=replace(claimed.shards, num_ranks=ranks))

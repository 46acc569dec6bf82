"""Routes of a call of experts, gathered by expert: several experts of like loads at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_routing.reference import ExpertsInputs
from moe_routing.reference.formats import Bools, Floats, Ids
from moe_routing.reference.routes import ABSENT

_LARGE = 2**22
"""The most numbers of a weight that one batch of experts gathers; a larger one goes alone."""

_CACHED = 2**17
"""About how many numbers an array of rows has: many are made of it, and a cache holds a few."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Experts ``[B]`` with their routes, ``[B, n]``: a token, a slot, and whether it is there."""

    experts: Ids
    tokens: Ids
    slots: Ids
    there: Bools

    def parts(self, width: int) -> Iterator[Batch]:
        """Yield the batch in parts of its rows, of about ``_CACHED`` numbers at ``width``."""
        rows = max(8, _CACHED // (len(self.experts) * width))
        for start in range(0, self.there.shape[1], rows):
            some = (slice(None), slice(start, start + rows))
            yield Batch(self.experts, self.tokens[some], self.slots[some], self.there[some])

    def of(self, values: npt.NDArray[Any]) -> Floats:
        """Return values ``[B, n, ...]`` with zeros where no route is there."""
        return np.where(self.there[..., None], values, 0.0)


def batches(inputs: ExpertsInputs) -> Iterator[Batch]:
    """Yield the chosen experts, those of like counts together, so that little is padded."""
    flat = inputs.expert_ids.reshape(-1)
    order = np.argsort(flat, kind="stable")[np.count_nonzero(flat == ABSENT) :]
    loads = np.bincount(flat[order])
    experts = np.flatnonzero(loads)
    counts = loads[experts]
    starts = counts.cumsum() - counts
    for some in _alike(counts, inputs.hidden_size * inputs.width):
        within = np.arange(counts[some].max())
        there = within < counts[some][:, None]
        routes = order[np.where(there, starts[some][:, None] + within, 0)]
        yield Batch(experts[some], *np.divmod(routes, inputs.top_k), there)


def _alike(counts: Ids, size: int) -> Iterator[Ids]:
    """Yield the places of counts that are alike: none is less than half of the greatest."""
    left = np.argsort(-counts, kind="stable")
    while left.size:
        most = max(1, _LARGE // size)
        near = left[: np.count_nonzero(2 * counts[left] + 8 >= counts[left[0]])][:most]
        yield near
        left = left[near.size :]

"""Groups: which experts may compete at all (docs/spec/groups.md)."""

from __future__ import annotations

import numpy as np

from moe_routing.reference.config import Groups
from moe_routing.reference.formats import Bools, Floats
from moe_routing.reference.selection import top_k


def group_scores(groups: Groups, biased: Floats) -> Floats:
    """Return ``[T, count]``: the sum of each group's ``top`` best of ``biased [T, E]``.

    Summed from the least to the best, so that groups of the same scores tie whatever their
    order. A NaN score counts as -inf, as it does everywhere in selection.
    """
    size = biased.shape[1] // groups.count
    grouped = np.fmax(biased, -np.inf).reshape(len(biased), groups.count, size)
    top = min(groups.top, size)
    best = np.sort(grouped, axis=2)[:, :, size - top :]
    total: Floats = sum(np.moveaxis(best, 2, 0))  # faster than along so short an axis
    return total


def kept_experts(groups: Groups, scores: Floats, num_experts: int) -> Bools:
    """Return ``[T, E]``: which experts belong to one of the groups of the best ``scores``."""
    best = top_k(scores, groups.kept)
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, best, True, axis=1)
    return np.repeat(kept, num_experts // groups.count, axis=1)

"""Groups: which experts may compete at all (docs/spec/groups.md)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moe_routing.reference.config import Groups
from moe_routing.reference.formats import Floats
from moe_routing.reference.selection import top_k


def group_scores(groups: Groups, biased: Floats) -> Floats:
    """Return ``[T, count]``: the sum of each group's ``top`` best of ``biased [T, E]``.

    Summed from the least to the best, so that groups of the same scores tie whatever their
    order. A NaN score counts as -inf, as it does everywhere in selection.
    """
    grouped = np.where(np.isnan(biased), -np.inf, biased)
    grouped = grouped.reshape(len(biased), groups.count, biased.shape[1] // groups.count)
    top = min(groups.top, grouped.shape[2])
    best: Floats = np.sort(grouped, axis=2)[:, :, -top:].sum(axis=2)
    return best


def kept_experts(groups: Groups | None, biased: Floats) -> npt.NDArray[np.bool_]:
    """Return ``[T, E]``: which experts belong to one of the ``kept`` best groups."""
    if groups is None:
        return np.ones(biased.shape, dtype=bool)
    best = top_k(group_scores(groups, biased), groups.kept)
    kept = np.zeros((len(biased), groups.count), dtype=bool)
    np.put_along_axis(kept, best, True, axis=1)
    return np.repeat(kept, biased.shape[1] // groups.count, axis=1)

"""Which tokens' gates stay below the limit at which an expert clamps them."""

from __future__ import annotations

from typing import Any

import numpy as np


def unclamped(hidden: Any, ids: Any, matrices: dict[str, Any], limit: float) -> Any:
    """Return whether no clamp bites, ``[T]``, of experts at ``ids [T, K]`` or of a shared one.

    A product of n numbers is off by less than n 2^-23 of the sum of their magnitudes, and by 2^-7
    of itself once it is stored in 16 bits.
    """
    import torch

    names = ("gate_weight", "up_weight") if ids is not None else ("gate_proj", "up_proj")
    below = np.ones(len(hidden), dtype=bool)
    x = hidden.double()
    for name in names:
        if (matrix := matrices.get(name)) is None:
            continue
        x = x.to(matrix.device)
        if ids is None:
            below &= _stays(x, matrix.double(), limit)
            continue
        for expert in np.unique(ids[ids >= 0]):
            rows = np.flatnonzero((ids == expert).any(axis=1))
            some = x[torch.from_numpy(rows).to(x.device)]
            below[rows] &= _stays(some, matrix[int(expert)].double(), limit)
    return below


def _stays(x: Any, matrix: Any, limit: float) -> Any:
    whole = (x @ matrix.T).abs() * (1.0 + 2.0**-7)
    slack = (x.abs() @ matrix.abs().T) * (x.shape[1] * 2.0**-23)
    return ((whole + slack) < limit).all(dim=1).cpu().numpy()

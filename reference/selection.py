"""Selection: the K best experts of every token (docs/spec/selection.md)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moe_routing.reference.formats import Floats


def top_k(values: Floats, k: int) -> npt.NDArray[np.int64]:
    """Return ``[T, k]``: the columns of the k greatest of ``values [T, N]``, best first.

    Equal values go to the lowest column; NaN counts as -inf, so that the columns are
    distinct whatever the values are.
    """
    ranked = np.where(np.isnan(values), -np.inf, values)
    order = np.argsort(-ranked, axis=1, kind="stable")
    return order[:, :k].astype(np.int64)

"""An answer, as the judge reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from moe_routing.reference.formats import Floats, Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """A backend's answer after conversion: float64 and int64 arrays, and their stored dtypes.

    ``weights [T, K]``, ``expert_ids [T, K]``, ``logits [T, E]`` or None. ``device`` is where
    it lay before that.
    """

    weights: Floats
    expert_ids: Ids
    logits: Floats | None = None
    weights_dtype: str = "float64"
    logits_dtype: str = "float64"
    device: str = "cpu"

    def rows(self, which: Ids | slice) -> Answer:
        """Take the rows ``which``."""
        logits = None if self.logits is None else self.logits[which]
        weights, ids = self.weights[which], self.expert_ids[which]
        return replace(self, weights=weights, expert_ids=ids, logits=logits)

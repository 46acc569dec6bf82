"""The bounds of the experts that an answer names, without those of the others."""

from __future__ import annotations

from dataclasses import dataclass

from moe_routing.conformance.judge.intervals import Interval
from moe_routing.conformance.judge.later import SelectionBounds
from moe_routing.conformance.judge.quotients import ScoreBounds
from moe_routing.conformance.judge.softmax import softmax_of_columns
from moe_routing.reference.formats import Floats, Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns(SelectionBounds):
    """The bounds between ``logits`` and weights of K experts a token: all are ``[T, K]``.

    What a softmax needs of the other experts are ``shift [T, 1]``, the greatest logit after the
    logit op, and ``others``, the sum of the exponentials of all others less that.
    """

    shift: Floats
    others: Floats

    def operated_at(self, expert_ids: Ids) -> Interval:
        """Return the logits after the logit op, which are those of ``expert_ids`` already."""
        return self.operated

    def scores_at(self, expert_ids: Ids) -> ScoreBounds:
        """Return the scores, which are those of ``expert_ids`` already."""
        if self.config.score != "softmax":
            return self.scores
        experts = self.config.num_experts
        return softmax_of_columns(self.operated, self.shift, self.others, experts, self.form)

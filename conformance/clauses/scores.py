"""Clauses of the chapter on scores (docs/spec/scores.md)."""

from __future__ import annotations

from moe_routing.conformance.clauses.registry import clause
from moe_routing.conformance.clauses.relations import wrong_weights
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.trial.trial import Trial


@clause(
    "scores.match",
    "MUST",
    why="Without renormalisation the weights show the scores themselves: a softmax where a "
    "sigmoid is due, one over the wrong axis, or over the selected experts only, shows here.",
    rules=("SCO-1", "SCO-3", "WGT-4", "WGT-6", "PIPE-4"),
    bugs=("M11", "M14", "M15", "M18"),
    narrow={"renormalize": (None,)},
    events=("not-renormalized", "small-sigmoid"),
)
def match(trial: Trial) -> Failure | None:
    """Where nothing is renormalised, a weight is its expert's score, times the scale."""
    return wrong_weights(trial.verdict)

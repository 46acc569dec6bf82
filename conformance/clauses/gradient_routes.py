"""Clauses of the chapter on gradients about where routes go: masks, tables, saturated scores."""

from __future__ import annotations

from moe_routing.conformance.clauses.gradients import ROWS, gives, gradient_clause, wrong
from moe_routing.conformance.explain.failure import Failure
from moe_routing.conformance.generators.choices import Focus
from moe_routing.conformance.trial.gradients import GradientTrial


@gradient_clause(
    "masked-groups",
    "A mask that lets a gradient through trains experts that cannot have been chosen.",
    rules=("GRAD-13",),
    bugs=("M64",),
    events=("gradient-masked",),
    narrow={"weights_from": ("masked_scores",), "groups": (True,)},
    needs=gives(*ROWS),
)
def masked_groups(trial: GradientTrial) -> Failure | None:
    """Weights of masked scores pass nothing at a masked expert, and a softmax is still of all."""
    return wrong(trial, *ROWS)


@gradient_clause(
    "saturated",
    "One NaN in a gradient and the whole model is NaN one step later.",
    rules=("GRAD-14",),
    bugs=("M64",),
    events=("gradient-saturated", "gradient-overflowing-exponential", "gradient-small-sigmoid"),
    focus=Focus(recipes=("saturated", "underflowing", "one-hot")),
    needs=gives(*ROWS),
)
def saturated(trial: GradientTrial) -> Failure | None:
    """Where scores saturate or underflow the gradient is finite, and right."""
    return wrong(trial, *ROWS)


@gradient_clause(
    "duplicates",
    "An expert that a token has twice is trained by both slots; a write in place of an addition "
    "loses one.",
    rules=("GRAD-15",),
    bugs=("M64",),
    events=("gradient-repeated",),
    narrow={"expert_table": (True,)},
    needs=gives(*ROWS),
)
def duplicates(trial: GradientTrial) -> Failure | None:
    """The gradients of slots of one expert add."""
    return wrong(trial, *ROWS)


@gradient_clause(
    "at-replayed-ids",
    "Replayed in training, experts are forced that the logits would not choose; their weights and "
    "gradients are still those of the logits.",
    rules=("GRAD-16",),
    bugs=("M64",),
    events=("gradient-elsewhere",),
    narrow={"expert_table": (True,)},
    needs=gives(*ROWS),
)
def at_replayed_ids(trial: GradientTrial) -> Failure | None:
    """At experts that are given, and are not the best, the gradient is that at those experts."""
    return wrong(trial, *ROWS)

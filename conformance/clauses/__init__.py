"""Clauses, by the chapters of the spec; importing this package registers them all."""

from moe_routing.conformance.clauses import (
    dispatch,
    gradient_calls,
    gradients,
    groups,
    invariance,
    layout,
    logits,
    permutation,
    repetition,
    robustness,
    scores,
    selection,
    shared_experts,
    weights,
)
from moe_routing.conformance.clauses.registry import (
    CHAPTERS,
    CLAUSES,
    Clause,
    NoSuchClause,
    rules_of,
    select_clauses,
)

__all__ = [
    "CHAPTERS",
    "CLAUSES",
    "Clause",
    "NoSuchClause",
    "dispatch",
    "gradient_calls",
    "gradients",
    "groups",
    "invariance",
    "layout",
    "logits",
    "permutation",
    "repetition",
    "robustness",
    "rules_of",
    "scores",
    "select_clauses",
    "selection",
    "shared_experts",
    "weights",
]

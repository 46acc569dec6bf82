"""Contradictions: axes of a claim that no call of the specification has together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def score_pairs(axes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the (score, weights_from) pairs that a claim of ``axes`` covers."""
    hashed = False not in axes["expert_table"]
    return [
        (score, source)
        for score in axes["score"]
        for source in axes["weights_from"]
        if (score != "identity" or source.endswith("_of_selected"))
        and not (hashed and source == "masked_scores")
    ]


def contradiction(axes: Mapping[str, Any]) -> str | None:
    """Return what of the axes of a claim cannot go together, and why, or None."""
    if not score_pairs({**axes, "expert_table": (False,)}):
        return (
            f"score={axes['score']} with weights_from={axes['weights_from']}: logits are not "
            f"weights; use softmax_of_selected or sigmoid_of_selected"
        )
    for axis, plain in {"groups": None, "selection_bias": "none"}.items():
        if False not in axes["expert_table"] and plain not in axes[axis]:
            return (
                f"expert_table=(True,) with {axis}={axes[axis]}: hash routing selects nothing; "
                f"use {axis}=({plain!r},)"
            )
    if not score_pairs(axes):
        return (
            f"expert_table=(True,) with score={axes['score']} and weights_from="
            f"{axes['weights_from']}: groups make the mask, and a table excludes groups; use "
            f"weights_from=('scores',)"
        )
    return None

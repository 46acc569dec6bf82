"""Shares: clauses that draw fewer cases than a run asks for, since more catch nothing more.

The evidence is the kill matrix (docs/zoo.md). A clause is here if every mutant that it catches is
caught by a constructed case, or within a few drawn ones, and if what it reads of a call is one
thing: whole verdicts on drawn calls are the matter of ``selection.valid-top-k``, ``weights.match``,
``logits.match``, ``scores.match``, ``groups.kept-only`` and ``invariance.batch-split``.
"""

from __future__ import annotations

FEW = 25
"""The cases that any clause draws, where a run asks for as many."""

_HALF = (
    *("logits.lora-delta", "logits.gate-bias"),
    *("groups.all-kept", "groups.negative-scores", "groups.one-group", "groups.smaller-than-top"),
    *("selection.bias-placement", "selection.distinct", "selection.every-expert-can-win"),
    *("selection.in-range", "selection.k-equals-e", "selection.zero-bias-is-no-bias"),
    *("weights.dtype", "weights.scale", "weights.tiny-norm", "weights.unbiased"),
    *("layout.contiguous", "layout.dtypes", "layout.well-formed"),
    *("invariance.expert-relabel", "invariance.float-mode-unchanged", "invariance.token-order"),
    *("invariance.inputs-unchanged", "invariance.logit-shift", "invariance.repeatable"),
    *("invariance.strided-input", "repetition.inputs-read-anew"),
    *("robustness.empty-batch", "robustness.large-logits", "robustness.nan-row"),
    *("robustness.nan-row-apart", "robustness.one-token", "robustness.underflow"),
    *("dispatch.sigmoid-with-bias", "dispatch.softmax-without-bias"),
    *("shared-experts.absent", "shared-experts.gate-applied-once", "shared-experts.mlp"),
    *("shared-experts.plural", "shared-experts.singular"),
)

SHARES = {**dict.fromkeys(_HALF, 0.5), "robustness.rejects-unclaimed": 0.25}
"""The share of a run's draws that a clause takes, by its id; of all others, the whole."""


def share_of(id: str, max_examples: int) -> int:
    """Return how many cases the clause ``id`` draws, where a run draws ``max_examples``."""
    return max(min(max_examples, FEW), round(max_examples * SHARES.get(id, 1.0)))

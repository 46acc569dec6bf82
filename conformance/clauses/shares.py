"""Shares: clauses that draw fewer cases than a run asks for, since more catch nothing more.

The evidence is the kill matrix (docs/zoo.md). A clause is here if every mutant that it catches is
caught by a constructed case, or within a few drawn ones, and if what it reads of a call is one
thing: whole verdicts on drawn calls are the matter of ``selection.valid-top-k``, ``weights.match``,
``logits.match``, ``scores.match``, ``groups.kept-only``, ``invariance.batch-split`` and
``robustness.answers``, and in other chapters of ``experts.match``, ``experts.gradients``,
``gradients.logits``, ``gradients.hidden``, ``layer.composes``, ``shards.union``, ``shards.sum``,
``permutation.conserved`` and ``replay.forced``. The chapters on capacity and balance, whose calls
cost next to nothing, are whole.
"""

from __future__ import annotations

FEW = 25
"""The cases that any clause draws, where a run asks for as many."""

_QUARTER = (
    *("logits.lora-delta", "logits.gate-bias"),
    *("groups.all-kept", "groups.negative-scores", "groups.one-group", "groups.smaller-than-top"),
    *("groups.ragged-rejected", "selection.bias-placement", "selection.bias-steers"),
    *("selection.distinct", "selection.every-expert-can-win", "selection.in-range"),
    *("selection.k-equals-e", "selection.zero-bias-is-no-bias"),
    *("weights.dtype", "weights.scale", "weights.sum", "weights.tiny-norm", "weights.unbiased"),
    *("layout.contiguous", "layout.dtypes", "layout.well-formed"),
    *("layout.flat-pairing", "layout.flat-token-order", "layout.map-zero-off-route"),
    *("invariance.expert-relabel", "invariance.float-mode-unchanged", "invariance.token-order"),
    *("invariance.inputs-unchanged", "invariance.logit-shift", "invariance.repeatable"),
    *("invariance.strided-input", "repetition.inputs-read-anew"),
    *("robustness.empty-batch", "robustness.infinite-logit", "robustness.large-logits"),
    *("robustness.nan-row", "robustness.nan-row-apart", "robustness.one-token"),
    *("robustness.rejects-bad-config", "robustness.rejects-unclaimed", "robustness.underflow"),
    *("dispatch.sigmoid-with-bias", "dispatch.softmax-without-bias"),
    *("shared-experts.absent", "shared-experts.gate-applied-once", "shared-experts.mlp"),
    *("shared-experts.plural", "shared-experts.singular"),
    *("permutation.aligned", "permutation.capacity-of-buffer", "permutation.counts"),
    *("permutation.gather", "permutation.grouped", "permutation.ids-untouched"),
    *("permutation.inverse", "permutation.no-tokens", "permutation.no-waste"),
    *("permutation.offsets", "permutation.padding-marked", "permutation.repeatable"),
    *("permutation.round-trip", "permutation.stable", "permutation.tiles"),
    "permutation.weights-follow",
    *("experts.absent", "experts.all-absent", "experts.batch-split", "experts.bias-weighted"),
    *("experts.empty-expert", "experts.exact", "experts.no-token", "experts.one-hot"),
    *("experts.repeatable", "experts.repeated", "experts.slot-order", "experts.unchosen"),
    *("experts.untouched", "experts.weight-on-input", "experts.weight-on-output"),
    *("experts.zero-weight", "experts.zero-weight-overflow"),
    *("layer.no-token", "layer.routing", "layer.shared-once", "layer.untouched"),
    *("shards.absent", "shards.biases-once", "shards.elsewhere-is-zero", "shards.idle-rank"),
    *("shards.maps", "shards.no-token", "shards.one-rank", "shards.replicas", "shards.skewed"),
)

SHARES = dict.fromkeys(_QUARTER, 0.25)
"""The share of a run's draws that a clause takes, by its id; of all others, the whole."""


def share_of(id: str, max_examples: int) -> int:
    """Return how many cases the clause ``id`` draws, where a run draws ``max_examples``."""
    return max(min(max_examples, FEW), round(max_examples * SHARES.get(id, 1.0)))

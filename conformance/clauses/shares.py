"""Shares: clauses that draw fewer cases than a run asks for, since more catch nothing more.

The evidence is the kill matrix (docs/zoo.md). A clause draws an eighth if every mutant that it
catches is caught by a constructed case, or within a few drawn ones, and if what it reads of a call
is one thing; a quarter where a mutant of its own takes a few more. Whole verdicts on drawn calls
are the matter of ``selection.valid-top-k``, ``weights.match`` and ``logits.match``, which draw all
that a run asks for; what else reads most of an answer draws half, here and in other chapters. The
chapters on capacity and balance, whose calls cost next to nothing, are whole.
"""

from __future__ import annotations

FEW = 12
"""The cases that any clause draws, where a run asks for as many."""

_HALF = (
    *("scores.match", "groups.kept-only", "groups.from-each", "logits.float32-gate"),
    *("invariance.batch-split", "robustness.answers", "permutation.conserved", "replay.forced"),
    *("gradients.logits", "gradients.hidden", "experts.match", "experts.gradients"),
    *("layer.composes", "shards.union", "shards.sum"),
)

_QUARTER = ("robustness.nan-row", "robustness.nan-row-apart", "robustness.infinite-logit")

_EIGHTH = (
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
    *("robustness.empty-batch", "robustness.large-logits"),
    *("robustness.rejects-bad-config", "robustness.rejects-unclaimed", "robustness.underflow"),
    "robustness.one-token",
    *("dispatch.sigmoid-with-bias", "dispatch.softmax-without-bias"),
    *("shared-experts.absent", "shared-experts.gate-applied-once", "shared-experts.mlp"),
    *("shared-experts.plural", "shared-experts.singular"),
    *("gradients.bias-has-none", "gradients.at-replayed-ids", "gradients.delta"),
    *("gradients.duplicates", "gradients.expert-scale", "gradients.float32-gate"),
    *("gradients.gate-bias", "gradients.gate-weight", "gradients.hidden-scale"),
    *("gradients.inputs-untouched", "gradients.linear", "gradients.masked-groups"),
    *("gradients.no-tokens", "gradients.norm-is-differentiated", "gradients.rows-apart"),
    "gradients.saturated",
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
    *("experts.gradients-absent", "experts.gradients-empty", "experts.gradients-exact"),
    "experts.gradients-untouched",
    *("layer.no-token", "layer.routing", "layer.shared-once", "layer.untouched"),
    *("shards.absent", "shards.biases-once", "shards.elsewhere-is-zero", "shards.idle-rank"),
    *("shards.maps", "shards.no-token", "shards.one-rank", "shards.replicas", "shards.skewed"),
    *("replay.absent-rows", "replay.layers", "replay.masked-scores", "replay.own-record"),
    *("replay.padding", "replay.recorded-weights", "replay.repeated", "replay.rows"),
    *("replay.strided", "replay.unrecorded", "replay.untouched", "replay.written"),
)

SHARES = {
    **dict.fromkeys(_HALF, 1 / 2),
    **dict.fromkeys(_QUARTER, 1 / 4),
    **dict.fromkeys(_EIGHTH, 1 / 8),
}
"""The share of a run's draws that a clause takes, by its id; of all others, the whole."""


def share_of(id: str, max_examples: int) -> int:
    """Return how many cases the clause ``id`` draws, where a run draws ``max_examples``."""
    return max(min(max_examples, FEW), round(max_examples * SHARES.get(id, 1.0)))

"""Mutants of replay: the record lost, shifted, cut, or overruled by the router's own choice."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.replayer import (
    ReplayWork,
    StagedReplayer,
    gather,
    gathered,
    held,
    norm_of,
    of_tokens,
    scaled,
    weights,
)
from moe_routing.reference.formats import BFLOAT16
from moe_routing.reference.routes import ABSENT

replayer = partial(mutant, makes=StagedReplayer)

ZERO = np.float32(0)


def _chosen(w: ReplayWork) -> Array:
    """Return what the router chooses by itself."""
    ids: Array = w.forward.expert_ids
    return ids


# Absent routes.


@replayer("absent-written-to-expert-0", "M76", "weights", real="AI-Hypercomputer/maxtext#4826")
def _(w: ReplayWork) -> Array:
    """Weights went into a dense table by `.set` at id 0 for -1: expert 0's own weight became 0."""
    right = weights(w)
    lost = ~w.present.all(axis=1, keepdims=True) & (w.ids == 0)
    return np.where(lost, ZERO, right)


@replayer("absent-replays-expert-0", "M47", "ids", real="THUDM/slime#822")
def _(w: ReplayWork) -> Array:
    """Rows without a record were filled with 0: K routes to expert 0, all of them run."""
    return np.maximum(of_tokens(w, w.recorded.expert_ids, ABSENT), 0)


@replayer("absent-in-the-norm", "M76", "norm", real="AI-Hypercomputer/maxtext#4826")
def _(w: ReplayWork) -> Array:
    """The sentinel was clamped to expert 0, whose score entered the norm: the others shrank."""
    scores = w.forward.scores if "selected" not in w.config.weights_from else w.gathered
    at = scores if scores is w.gathered else np.take_along_axis(scores, w.at, axis=1)
    return norm_of(w, at)


@replayer("absent-replays-the-last-expert", "M46", "answer_ids", real="vllm-project/vllm#42034")
def _(w: ReplayWork) -> Array:
    """An id of -1 indexed from the end: absent routes went to the last expert."""
    return np.where(w.ids == ABSENT, w.config.num_experts - 1, w.ids)


@replayer("absent-keeps-its-recorded-weight", "M76", "held", real="radixark/miles#2722")
def _(w: ReplayWork) -> Array | None:
    """A weight was recorded in a slot that had been dropped, and still counted."""
    if w.recorded.weights is None:
        return None
    return of_tokens(w, w.recorded.weights, ZERO)


@replayer("absent-routes-freely", "M76", "ids", real="PrimeIntellect-ai/prime-rl#1807")
def _(w: ReplayWork) -> Array:
    """A token at the seam of two turns had no record, and was routed by the trainer."""
    ids = of_tokens(w, w.recorded.expert_ids, ABSENT)
    return np.where((ids == ABSENT).all(axis=1, keepdims=True), _chosen(w), ids)


# Which experts, in which slots.


@replayer("replayed-ids-sorted", "M76", "answer_ids", real="radixark/miles#2722")
def _(w: ReplayWork) -> Array:
    """Ids were sorted for a grouped product; recorded weights kept the order of slots."""
    return np.sort(w.ids, axis=1)


@replayer("replay-is-a-no-op", "M76", "ids", real="PrimeIntellect-ai/prime-rl#2738")
def _(w: ReplayWork) -> Array:
    """The record was set on a router that no forward pass used: every layer chose by itself."""
    return _chosen(w)


@replayer("replayed-ids-in-8-bits", "M44", "ids", real="radixark/miles#2722")
def _(w: ReplayWork) -> Array:
    """Records were kept in bytes: expert 256 came back as expert 0."""
    ids = of_tokens(w, w.recorded.expert_ids, ABSENT)
    return np.where(ids < 0, ids, ids & 0xFF)


@replayer("replayed-ids-in-16-bits", "M44", "ids", real="google/tunix#2046")
def _(w: ReplayWork) -> Array:
    """Records were kept in shorts: an expert above 32,767 came back as none, or as another."""
    ids = of_tokens(w, w.recorded.expert_ids, ABSENT)
    return np.where(ids < 0, ids, ids & 0x7FFF)


@replayer("repeated-expert-replayed-once", "M76", "ids", real="NVIDIA-NeMo/RL#3208")
def _(w: ReplayWork) -> Array:
    """A map of experts cannot hold one twice: the second slot of a repeated expert was lost."""
    ids = of_tokens(w, w.recorded.expert_ids, ABSENT)
    earlier = np.tril(ids[:, :, None] == ids[:, None, :], -1).any(axis=2)
    return np.where(earlier, ABSENT, ids)


@replayer("repeated-weights-added-up", "M76", "weights", real="THUDM/slime#822")
def _(w: ReplayWork) -> Array:
    """A dense table was filled by addition: each slot of a repeated expert got the sum."""
    right = weights(w)
    same = (w.ids[:, :, None] == w.ids[:, None, :]) & w.present[:, None, :]
    return np.where(w.present, (same * right[:, None, :]).sum(axis=2), ZERO).astype(np.float32)


# Which weights.


@replayer("weights-of-the-best-replayed", "M76", "at", real="NVIDIA/Megatron-LM#4168")
def _(w: ReplayWork) -> Array:
    """Ids were replaced after top-k, and the weights were still those of the ids before."""
    return _chosen(w)


@replayer("replayed-scores-of-a-fresh-mask", "M76", "gathered", real="ISEEKYAN/Megatron-LM#79")
def _(w: ReplayWork) -> Array:
    """Scores were gathered from a table that a fresh choice had zeroed: recorded experts got 0."""
    mine = (w.ids[:, :, None] == _chosen(w)[:, None, :]).any(axis=2)
    return np.where(mine, gathered(w), ZERO)


@replayer("group-mask-on-replayed-experts", "M76", "gathered", real="ISEEKYAN/Megatron-LM#79")
def _(w: ReplayWork) -> Array:
    """Masked scores were masked by the trainer's own groups: experts that had run weighed 0."""
    right = gathered(w)
    if w.config.weights_from != "masked_scores":
        return right
    return np.where(np.take_along_axis(w.forward.kept, w.at, axis=1), right, ZERO)


@replayer("selection-bias-in-replayed-weights", "M76", "gathered", real="verl-project/verl#7340")
def _(w: ReplayWork) -> Array:
    """Weights were gathered from what competes, which has the selection bias in it."""
    if "selected" in w.config.weights_from or w.forward.selection_bias is None:
        return gathered(w)
    return gather(w, w.forward.biased)


@replayer("norm-left-out-of-replay", "M76", "renormalized", real="NVIDIA-NeMo/Automodel#2797")
def _(w: ReplayWork) -> Array:
    """The path with given ids skipped the division by the norm."""
    return w.gathered


@replayer("scale-left-out-of-replay", "M76", "scaled", real="NVIDIA-NeMo/Automodel#2797")
def _(w: ReplayWork) -> Array:
    """The path with given ids skipped the routed scaling factor."""
    return w.renormalized


@replayer("expert-scale-of-the-chosen", "M76", "weights", real="areal-project/AReaL#1496")
def _(w: ReplayWork) -> Array:
    """Each expert's own scale was looked up at the experts of the fresh choice."""
    scales = w.forward.per_expert_scale
    if scales is None:
        return weights(w)
    return np.where(w.present, w.scaled * scales[_chosen(w)], ZERO)


@replayer("recorded-weights-ignored", "M76", "held", real="radixark/miles#2722")
def _(w: ReplayWork) -> Array | None:
    """The record held weights, and the trainer computed its own all the same."""
    return None


@replayer("recorded-weights-scaled-again", "M76", "held", real="NVIDIA/Megatron-LM#4256")
def _(w: ReplayWork) -> Array | None:
    """Recorded weights were final; the routed scaling factor was applied to them once more."""
    right = held(w)
    return None if right is None else right * np.float32(w.config.scale)


@replayer("recorded-weights-normed-again", "M76", "held", real="NVIDIA/Megatron-LM#4256")
def _(w: ReplayWork) -> Array | None:
    """Recorded weights were divided by their sum, which the engine had done before its scale."""
    right = held(w)
    if right is None or w.config.renormalize is None:
        return right
    return np.where(w.present, right / right.sum(axis=1, keepdims=True), ZERO)


@replayer("recorded-weights-in-bfloat16", "M76", "held", real="flashinfer-ai/flashinfer#3024")
def _(w: ReplayWork) -> Array | None:
    """Weights went through the dtype of the hidden states on their way into the batch."""
    right = held(w)
    return None if right is None else BFLOAT16.round(right).astype(np.float32)


@replayer("replay-computes-otherwise", "M76", "scaled", real="vllm-project/vllm#39701")
def _(w: ReplayWork) -> Array:
    """Replayed weights took another kernel than chosen ones, and its last bit: nothing matched."""
    return np.nextafter(scaled(w), np.float32(np.inf))

"""Mutants of experts' gradients: routes, tokens, buffers and precision."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.learner import (
    LearnerWork,
    StagedLearner,
    answer,
    of_bias,
    of_matrix,
)
from moe_routing.conformance.zoo.router.memory import overwrite
from moe_routing.reference import ExpertGradients
from moe_routing.reference.formats import BFLOAT16, FLOAT16

learner = partial(mutant, makes=StagedLearner)

_MATRICES = ("of_gate_weight", "of_up_weight", "of_down_weight")


def _parts(w: LearnerWork, stage: str) -> tuple[Array, Array]:
    """Return what the gradient of a matrix is a product of."""
    if stage == "of_down_weight":
        return w.at_answers, w.forward.inner
    return (w.at_gate if stage == "of_gate_weight" else w.at_up), w.forward.x


def _is_there(w: LearnerWork, stage: str) -> bool:
    return w.config.gated or stage != "of_gate_weight"


# Routes and tokens.


@learner(
    "gradient-rows-wrap",
    "M86",
    "at_rows",
    real="axolotl-ai-cloud/axolotl 0.19.0, ops",
    needs="65,536 numbers in the rows",
)
def _(w: LearnerWork) -> Array:
    """The offset of a row wrapped where gradients are gathered: the last rows went elsewhere."""
    rows: Array = w.right("at_rows").copy()
    rows[np.arange(len(rows)) * w.inputs.hidden_size >= 2**16] = 0
    return rows


@learner("hidden-misses-a-slot", "M86", "of_hidden", real="open-lm-engine/lm-engine#4")
def _(w: LearnerWork) -> Array:
    """The rows of a token's last slot were not added to its gradient."""
    keep = w.forward.routes % w.inputs.top_k < max(1, w.inputs.top_k - 1)
    rows = w.at_x if w.late else w.stored(w.at_x * w.forward.scale)
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    np.add.at(total, w.forward.tokens[keep], rows[keep])
    return w.stored(total)


@learner("hidden-of-one-slot-written-over", "M86", "of_hidden", real="open-lm-engine/lm-engine#4")
def _(w: LearnerWork) -> Array:
    """Rows were written to their token, not added."""
    rows = w.at_x if w.late else w.stored(w.at_x * w.forward.scale)
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    total[w.forward.tokens] = rows
    return total


@learner(
    "last-rows-of-a-matrix-lost",
    "M86",
    *_MATRICES,
    real="woct0rdho/transformers-qwen3-moe-fused#12",
)
def _(w: LearnerWork, stage: str) -> Array | None:
    """A kernel summed over whole tiles of rows: the rest of an expert's tokens taught nothing."""
    if not _is_there(w, stage):
        return None
    at, x = _parts(w, stage)
    at = at.copy()
    for expert in np.unique(w.forward.owners):
        rows = np.flatnonzero(w.forward.owners == expert)
        at[rows[len(rows) // 16 * 16 :] if len(rows) > 16 else rows[:0]] = 0
    return of_matrix(w, at, x)


@learner("rows-past-256-lost", "M86", *_MATRICES, real="nvidia-cosmos/cosmos-rl#262")
def _(w: LearnerWork, stage: str) -> Array | None:
    """The grid of a kernel was too small for an expert of many tokens."""
    if not _is_there(w, stage):
        return None
    at, x = _parts(w, stage)
    at = at.copy()
    for expert in np.unique(w.forward.owners):
        at[np.flatnonzero(w.forward.owners == expert)[256:]] = 0
    return of_matrix(w, at, x)


@learner("empty-expert-gets-a-gradient", "M86", *_MATRICES, real="pytorch/pytorch#172439")
def _(w: LearnerWork, stage: str) -> Array | None:
    """Groups of no tokens got gradients of what the memory held, on one kind of GPU."""
    return _unwritten(w, w.right(stage), stage)


@learner(
    "empty-expert-bias-gets-a-gradient",
    "M86",
    *("of_gate_bias", "of_up_bias", "of_down_bias"),
    real="AMD-AGI/Primus-Turbo#397",
)
def _(w: LearnerWork, stage: str) -> Array | None:
    """Regions of a gradient that no group covers came back as they were allocated."""
    return _unwritten(w, w.right(stage), stage)


def _unwritten(w: LearnerWork, right: Array | None, stage: str) -> Array | None:
    """Return a gradient whose experts without routes hold what an earlier one left."""
    if right is None:
        return None
    stale = w.memory.get((stage, right.shape))
    empty = np.setdiff1d(np.arange(w.config.num_experts), w.forward.owners)
    out = right.copy()
    if stale is not None:
        out[empty] = stale[empty]
    w.memory[stage, right.shape] = out
    return out


@learner("absent-route-gets-a-gradient", "M86", "of_weights", real="huggingface/transformers#48687")
def _(w: LearnerWork) -> Array:
    """A sentinel ran the last expert times 0: its weight had a gradient, and so the router."""
    right: Array = w.right("of_weights")
    lost, ids = w.inputs.expert_ids < 0, w.forward.owners
    if not lost.any() or not ids.size:
        return right
    row = np.flatnonzero(ids == ids.max())[0]
    borrowed = w.stored((w.cotangent * w.forward.answers[row]).sum(axis=1, dtype=np.float32))
    return np.where(lost, borrowed[:, None], right)


@learner("absent-token-unwritten", "M86", "of_hidden", real="huggingface/transformers#48205")
def _(w: LearnerWork) -> Array:
    """Rows of sentinels were left as allocated, and NaN from the second step on."""
    right: Array = w.right("of_hidden")
    lost = np.asarray((w.inputs.expert_ids < 0).all(axis=1))
    return np.where(lost[:, None], np.float32(np.nan), right)


@learner(
    "unchosen-nan-spreads-in-backward", "M86", "of_hidden", real="huggingface/transformers#48205"
)
def _(w: LearnerWork) -> Array:
    """The backward pass multiplied sentinels with 0, also where their expert was not finite."""
    right: Array = w.right("of_hidden")
    wild = ~np.isfinite(w.forward.matrices["up_weight"][-1]).all()
    some = (w.inputs.expert_ids < 0).any(axis=1)
    return np.where((some & wild)[:, None], np.float32(np.nan), right)


@learner("repeated-expert-learns-once", "M86", *_MATRICES, real="open-lm-engine/lm-engine#4")
def _(w: LearnerWork, stage: str) -> Array | None:
    """A map of tokens and experts has one place for an expert in two slots of a token."""
    if not _is_there(w, stage):
        return None
    at, x = _parts(w, stage)
    pairs = w.forward.tokens * w.config.num_experts + w.forward.owners
    first = np.zeros(len(pairs), bool)
    first[np.unique(pairs, return_index=True)[1]] = True
    return of_matrix(w, np.where(first[:, None], at, np.float32(0)), x)


# Precision.


@learner("matrix-gradient-in-16-bits", "M86", *_MATRICES, real="ISEEKYAN/Megatron-LM#153")
def _(w: LearnerWork, stage: str) -> Array | None:
    """Each token's part was added to a sum in 16 bits, which stops growing."""
    if not _is_there(w, stage):
        return None
    at, x = _parts(w, stage)
    form = FLOAT16 if w.inputs.dtype == "float16" else BFLOAT16
    out = np.zeros((w.config.num_experts, at.shape[1], x.shape[1]), np.float32)
    for row, expert in enumerate(w.forward.owners):
        out[expert] = form.round(out[expert] + np.outer(at[row], x[row])).astype(np.float32)
    return out


@learner(
    "bias-gradient-of-one-row", "M86", "of_up_bias", "of_down_bias", real="pytorch/pytorch#172439"
)
def _(w: LearnerWork, stage: str) -> Array | None:
    """The gradient of a bias was that of an expert's last row, not the sum."""
    at, name = (w.at_up, "up") if stage == "of_up_bias" else (w.at_answers, "down")
    right = of_bias(w, at, name)
    if right is None:
        return None
    out = np.zeros_like(right)
    out[w.forward.owners] = at
    return w.stored(out)


# The call.


@learner("expert-inputs-overwritten", "M86", "answer", real="databricks/megablocks@46567ec")
def _(w: LearnerWork) -> Any:
    """The gradient of the hidden states was written over them, to save a buffer."""
    right = answer(w)
    overwrite(w.inputs.hidden, np.asarray(right.hidden))
    return right


@learner("experts-give-none", "M86", "answer", real="AI-Hypercomputer/maxtext#5042")
def _(w: LearnerWork) -> ExpertGradients:
    """The backward pass returned None for the routing weights: the router was never trained."""
    found = answer(w).arrays()
    return ExpertGradients(**{name: each for name, each in found.items() if name != "weights"})


@learner("tf32-in-backward", "M86", *_MATRICES, real="triton-lang/triton#1937")
def _(w: LearnerWork, stage: str) -> Array | None:
    """Float32 products of the backward pass rounded their operands to 11 bits, by default."""
    if not _is_there(w, stage):
        return None
    at, x = _parts(w, stage)
    return of_matrix(w, _cut(at), _cut(x)) if w.inputs.dtype == "float32" else of_matrix(w, at, x)


def _cut(values: Array) -> Array:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFFE000)
    return bits.view(np.float32)

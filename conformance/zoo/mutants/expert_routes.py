"""Mutants of experts: absent routes, empty experts, rows and tiles, buffers, calls."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import overwrite
from moe_routing.conformance.zoo.router.runner import RunnerWork, StagedRunner, by_expert

runner = partial(mutant, makes=StagedRunner)


def _all_present(w: RunnerWork) -> Array:
    """Return every route by expert, those of weight 0 and those that were absent as well."""
    return np.argsort(w.ids.reshape(-1), kind="stable")


# Absent routes.


@runner(
    "absent-runs-the-first-expert",
    "M47",
    "ids",
    "routes",
    real="axolotl-ai-cloud/axolotl@45a17e925",
)
def _(w: RunnerWork, stage: str) -> Array:
    """Sentinels became the first expert with a weight of 0, which is NaN where it overflows."""
    return np.maximum(w.inputs.expert_ids, 0) if stage == "ids" else _all_present(w)


@runner(
    "absent-runs-the-last-expert",
    "M48",
    "ids",
    "routes",
    real="huggingface/transformers 5.23.0, batched_mm",
)
def _(w: RunnerWork, stage: str) -> Array:
    """A sentinel was clamped to the last expert, run, and multiplied by 0."""
    if stage == "routes":
        return _all_present(w)
    return np.where(w.inputs.expert_ids < 0, w.config.num_experts - 1, w.inputs.expert_ids)


@runner("absent-wraps-and-weighs", "M46", "ids", "weights", real="vllm-project/vllm#42034")
def _(w: RunnerWork, stage: str) -> Array:
    """Indexed with -1, a map gave the last expert; its weight was that of the row before."""
    lost = w.inputs.expert_ids < 0
    if stage == "ids":
        return np.where(lost, w.config.num_experts - 1, w.inputs.expert_ids)
    return np.where(lost, np.float32(0.25), w.inputs.weights)


@runner("absent-slots-unwritten", "M48", "output", real="vllm-project/vllm#54083")
def _(w: RunnerWork) -> Array:
    """The sum over slots read rows that nobody had written: what was there before."""
    right: Array = w.right("output")
    stale = w.memory.get(right.shape)
    w.memory[right.shape] = right
    partly = np.asarray((w.ids < 0).any(axis=1) & (w.ids >= 0).any(axis=1))
    return right if stale is None else w.stored(right + np.where(partly[:, None], stale, 0))


@runner("token-without-routes-unwritten", "M48", "output", real="huggingface/transformers#48205")
def _(w: RunnerWork) -> Array:
    """Rows of sentinels were never initialised: what an earlier call had left was the output."""
    right: Array = w.right("output")
    stale = w.memory.get(right.shape)
    w.memory[right.shape] = right
    lost = np.asarray((w.ids < 0).all(axis=1))
    return right if stale is None else np.where(lost[:, None], stale, right)


@runner("every-expert-run-and-masked", "M48", "output", real="ROCm/aiter@9573452c0e")
def _(w: RunnerWork) -> Array:
    """All experts were run on all tokens and multiplied by 0: NaN in any spread to every row."""
    wild = [
        not np.isfinite(each[expert]).all()
        for expert in range(w.config.num_experts)
        for name, each in w.inputs.arrays().items()
        if name in ("up_weight", "down_weight")
    ]
    right: Array = w.right("output")
    return right * np.float32(np.nan) if any(wild) else right


@runner("zero-times-infinity", "M48", "routes", real="ROCm/aiter#3677")
def _(w: RunnerWork) -> Array:
    """Rows of weight 0 were multiplied, not masked."""
    order = _all_present(w)
    return order[np.count_nonzero(w.ids < 0) :]


# Empty experts, tiles and rows.


@runner("empty-expert-shifts-the-weights", "M41", "owners", real="InternLM/xtuner#2053")
def _(w: RunnerWork) -> Array:
    """Counts left empty experts out, so that later rows met the matrices of the ones before."""
    right: Array = w.right("owners")
    return np.unique(right, return_inverse=True)[1].reshape(right.shape)


@runner("empty-first-expert-shifts-the-weights", "M41", "owners", real="pytorch/torchtitan#1166")
def _(w: RunnerWork) -> Array:
    """A grouped product that cannot begin with an empty group began with the next."""
    right: Array = w.right("owners")
    return right - (1 if right.size and right.min() > 0 else 0)


@runner("last-rows-of-a-tile-lost", "M36", "routes", real="vllm-project/vllm#34991")
def _(w: RunnerWork) -> Array:
    """Tiles were rounded down: past 32 rows of an expert, those of its last tile were lost."""
    right = by_expert(w)
    owners = w.ids.reshape(-1)[right]
    place = np.arange(right.size) - np.searchsorted(owners, owners)
    counts = np.bincount(owners, minlength=1)[owners] if right.size else place
    return right[(counts < 32) | (place < counts // 32 * 32)]


@runner("single-row-lost", "M53", "routes", real="huggingface/transformers#32283")
def _(w: RunnerWork) -> Array:
    """An expert with next to no rows was taken for one without any."""
    right = by_expert(w)
    owners = w.ids.reshape(-1)[right]
    counts = np.bincount(owners, minlength=1)[owners] if right.size else owners
    return right[(counts > 1) | (w.inputs.num_tokens < 2)]


@runner("counts-for-the-offsets-of-experts", "M41", "owners", real="Dao-AILab/sonic-moe@c6ba863")
def _(w: RunnerWork) -> Array:
    """Where T was no multiple of four, offsets were counts: rows met other matrices."""
    right: Array = w.right("owners")
    if w.inputs.num_tokens % 4 == 0 or not right.size:
        return right
    ends = np.bincount(right, minlength=w.config.num_experts)
    found = np.searchsorted(np.maximum.accumulate(ends), np.arange(right.size), side="right")
    return np.minimum(found, w.config.num_experts - 1)


@runner("tokens-by-slot", "M52", "tokens", real="NVIDIA/Megatron-LM@a98c5ba19c")
def _(w: RunnerWork) -> Array:
    """Ids were read as if K were 1: rows were those of other tokens."""
    return w.routes % max(1, w.inputs.num_tokens)


@runner("slots-of-other-tokens", "M52", "x", real="unslothai/unsloth#3953")
def _(w: RunnerWork) -> Array:
    """The gather was not built from the flattened slots."""
    number = max(1, w.inputs.num_tokens)
    x = w.inputs.hidden[w.routes % number]
    return w.stored(x * w.scale) if w.config.weight_on == "input" else x


@runner("put-back-in-the-wrong-order", "M52", "output", real="NVIDIA/Megatron-LM@9bbb40dd65")
def _(w: RunnerWork) -> Array:
    """The permutation was applied where its inverse was due."""
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    places = np.argsort(w.tokens, kind="stable")
    np.add.at(total, w.tokens[places], w.weighted)
    return w.stored(total)


@runner("last-slot-wins", "M63", "output", real="vllm-project/vllm-xpu-kernels#66")
def _(w: RunnerWork) -> Array:
    """With more than one slot, each wrote its token's output over that of the one before."""
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    total[w.tokens] = w.weighted
    return w.stored(total)


@runner("repeated-expert-added-once", "M52", "routes", real="NVIDIA/Megatron-LM#6086")
def _(w: RunnerWork) -> Array:
    """A map of tokens and experts has one place for an expert that holds two slots of a token."""
    right = by_expert(w)
    keys = w.ids.reshape(-1)[right] * max(1, w.inputs.num_tokens) + right // w.top_k
    return right[np.sort(np.unique(keys, return_index=True)[1])]


# Calls.


@runner("zero-tokens-divide", "M53", "answer", real="lightseekorg/tokenspeed#415")
def _(w: RunnerWork) -> Array:
    """A launcher divided by the number of tokens."""
    _ = 1 // w.inputs.num_tokens
    return w.output


@runner("zero-tokens-make-a-row", "M53", "answer", real="laekov/fastmoe#107")
def _(w: RunnerWork) -> Array:
    """An empty batch was made one of a row, so that a kernel could be started."""
    empty = w.inputs.num_tokens == 0
    return np.zeros((1, w.inputs.hidden_size), np.float32) if empty else w.output


@runner("workspace-returned", "M48", "answer", real="SJTU-DENG-Lab/Diffulex#37")
def _(w: RunnerWork) -> Any:
    """A kept workspace was returned itself, and the next call wrote over the answer."""
    buffer = w.memory.setdefault(w.output.shape, np.zeros_like(w.output))
    buffer[...] = w.output
    return buffer


@runner("output-added-up", "M34", "output", real="ROCm/aiter#2381")
def _(w: RunnerWork) -> Array:
    """A workspace of an earlier call was added to, not cleared."""
    right: Array = w.right("output")
    key = w.inputs.hidden.tobytes()
    before = w.memory.get(key, 0)
    w.memory[key] = right
    return w.stored(right + before)


@runner("hidden-states-overwritten", "M61", "answer", real="vllm-project/vllm#28939")
def _(w: RunnerWork) -> Array:
    """The output was written over the hidden states, which the shared expert read afterwards."""
    output = w.output.copy()
    overwrite(w.inputs.hidden, output)
    return output


@runner("routing-weights-scaled-in-place", "M61", "weighted", real="databricks/megablocks@46567ec")
def _(w: RunnerWork) -> Array:
    """The caller's weights were divided in place, and autograd read them again."""
    right: Array = w.right("weighted")
    overwrite(w.inputs.weights, w.inputs.weights / np.float32(2))
    return right

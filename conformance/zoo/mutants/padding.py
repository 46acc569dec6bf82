"""Mutants of padding: masks and counts misread, sentinels of another convention, NaN that leaks."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.padder import PaddedWork, StagedPadder, masked
from moe_routing.conformance.zoo.router.runner import RUNNING, RunnerWork, StagedRunner

padder = partial(mutant, makes=StagedPadder)
ZERO = np.float32(0)


def _count(w: PaddedWork, number: int) -> Array:
    """Return that so many tokens come first."""
    return np.arange(len(w.padding.real)) < number


@padder("padding-mask-inverted", "M55", "valid", real="NVIDIA/Megatron-LM#5542")
def _(w: PaddedWork) -> Array:
    """A mask of padding went to a function that takes one of tokens: all tokens were dropped."""
    return ~w.padding.valid if w.padding.told == "padding" else w.padding.valid


@padder("valid-mask-inverted", "M55", "valid", real="NVIDIA/Megatron-LM#2142")
def _(w: PaddedWork) -> Array:
    """The same mistake the other way round."""
    return ~w.padding.valid if w.padding.told == "valid" else w.padding.valid


@padder("mask-taken-for-a-count", "M55", "valid", real="vllm-project/vllm#46428")
def _(w: PaddedWork) -> Array:
    """A mask was summed, and so many tokens were taken from the front."""
    return _count(w, int(w.padding.real.sum()))


@padder("count-one-short", "M55", "valid", real="sgl-project/sglang#20964")
def _(w: PaddedWork) -> Array:
    """The bound was exclusive twice: the last token was taken for padding."""
    if w.padding.told != "count":
        return w.padding.valid
    return _count(w, int(w.padding.real.sum()) - 1)


@padder("count-one-too-many", "M55", "valid", real="alibaba/rtp-llm#1325")
def _(w: PaddedWork) -> Array:
    """The bound was inclusive: the first row of padding was routed."""
    if w.padding.told != "count":
        return w.padding.valid
    return _count(w, int(w.padding.real.sum()) + 1)


@padder("padding-routed", "M55", "valid", real="vllm-project/vllm#48979")
def _(w: PaddedWork) -> Array:
    """Nobody read the mask: padding was routed, and took the experts' time."""
    return np.ones(len(w.padding.real), bool)


@padder("padding-alone-is-routed", "M53", "valid", real="vllm-project/vllm#50757")
def _(w: PaddedWork) -> Array:
    """A count of 0 was read as none given: a batch of padding alone was routed whole."""
    return w.padding.valid if w.padding.real.any() else np.ones(len(w.padding.real), bool)


@padder("padding-to-expert-0", "M47", "ids", real="axolotl-ai-cloud/axolotl@45a17e925")
def _(w: PaddedWork) -> Array:
    """Padding got expert 0 and a weight of 0: it took rows, and was multiplied by 0."""
    return masked(w, w.routed_ids, 0)


@padder("padding-keeps-its-experts", "M55", "ids", real="vllm-project/vllm#50759")
def _(w: PaddedWork) -> Array:
    """Only the weights were masked: padding still counted as load."""
    return w.routed_ids


@padder("padding-keeps-its-weights", "M55", "weights", real="tenstorrent/tt-metal#44272")
def _(w: PaddedWork) -> Array:
    """Only the ids were masked; the weights of padding went on into the sum over slots."""
    return w.routed_weights


@padder("sentinel-of-another-library", "M47", "nobody", real="huggingface/transformers#48653")
def _(w: PaddedWork) -> int:
    """E stood for no expert where -1 was promised: a one-hot of E classes raised on it."""
    return w.config.num_experts


@padder("sentinel-unsigned", "M46", "nobody", real="vllm-project/vllm#20166")
def _(w: PaddedWork) -> int:
    """Ids were unsigned: -1 came out as 4,294,967,295."""
    return 2**32 - 1


@padder("padding-multiplied-by-0", "M48", "weights", real="ROCm/aiter@9573452c0e")
def _(w: PaddedWork) -> Array:
    """Weights were multiplied by the mask: NaN of padding stayed NaN."""
    mask: Array = w.padding.valid.astype(np.float32)[:, None]
    return np.asarray(w.routed_weights * mask)


@padder("nan-of-padding-spreads", "M31", "routed_weights", real="vllm-project/vllm#39593")
def _(w: PaddedWork) -> Array:
    """A maximum over the whole batch saw the NaN of padding, and all weights were NaN."""
    right: Array = w.forward.weights
    return np.asarray(right + ZERO * np.float32(np.max(right, initial=0.0)))


@padder("tokens-moved-to-the-front", "M41", "routed_ids", real="local-inference-lab/vllm#291")
def _(w: PaddedWork) -> Array:
    """Padding was squeezed out before the router and never put back: tokens changed places."""
    order = np.argsort(~w.padding.valid, kind="stable")
    return np.asarray(w.forward.expert_ids[order])


@padder("padding-left-unwritten", "M48", "ids", real="sgl-project/sglang#24850")
def _(w: PaddedWork) -> Array:
    """Slots of padding were not written: the experts of the batch before stayed in them."""
    shape = w.routed_ids.shape
    buffer = w.memory.setdefault(shape, np.full(shape, w.nobody))
    buffer[w.valid] = w.routed_ids[w.valid]
    return np.array(buffer)


@mutant(
    "absent-times-nan", "M48", "output", real="huggingface/transformers#48205", makes=StagedRunner
)
def _(w: RunnerWork) -> Array:
    """A sentinel was clamped to an expert, run, and multiplied by 0: NaN of padding was NaN."""
    right: Array = RUNNING["output"](w)
    lost = np.asarray((w.inputs.expert_ids < 0).all(axis=1))
    through = (w.inputs.hidden.sum(axis=1, keepdims=True) * ZERO).astype(right.dtype)
    return np.where(lost[:, None], right + through, right)

"""Mutants of experts that are wrong from some size on: tails, blocks, ids, slots."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.runner import RunnerWork, StagedRunner

runner = partial(mutant, makes=StagedRunner)


def _up_to_a_multiple(size: int, block: int) -> int:
    """Return the size without its last part of a block; all of it below one block."""
    return size - size % block if size > block else size


@runner(
    "last-columns-of-128-lost", "M36", "output", real="vllm-project/vllm#46406", needs="129 columns"
)
def _(w: RunnerWork) -> Array:
    """Tiles of 128 columns without a mask at the end: the last part was never written."""
    output: Array = w.right("output")
    output[:, _up_to_a_multiple(output.shape[1], 128) :] = 0
    return output


@runner("last-rows-of-16-lost", "M36", "inner", real="NVIDIA/TileGym#24", needs="a width of 17")
def _(w: RunnerWork) -> Array:
    """The last product read its inner dimension in blocks of 16, and not the rest."""
    inner: Array = w.right("inner")
    inner[:, _up_to_a_multiple(inner.shape[1], 16) :] = 0
    return inner


@runner("last-inputs-of-16-lost", "M36", "x", real="ROCm/aiter#2604", needs="17 columns")
def _(w: RunnerWork) -> Array:
    """The first products read the hidden states in blocks of 16, and not the rest."""
    x: Array = w.right("x").copy()
    x[:, _up_to_a_multiple(x.shape[1], 16) :] = 0
    return x


@runner("experts-above-256-not-run", "M35", "weights", real="kekzl/imp#2056", needs="257 experts")
def _(w: RunnerWork) -> Array:
    """One block of 256 threads, an expert each: what the others were to do was not done."""
    return np.where(w.ids < 256, w.right("weights"), 0)


@runner(
    "expert-ids-in-7-bits", "M44", "owners", real="modelscope/ms-swift#9981", needs="129 experts"
)
def _(w: RunnerWork) -> Array:
    """Signed bytes held the expert ids: past 127 the matrices of another expert were read."""
    return np.asarray(w.right("owners") % 128)


@runner(
    "slots-above-8-lost", "M38", "weights", real="NVIDIA/TransformerEngine#2821", needs="9 slots"
)
def _(w: RunnerWork) -> Array:
    """The kernel had registers for eight slots of a token."""
    return np.where(np.arange(w.top_k) < 8, w.right("weights"), 0)


@runner("last-row-of-a-full-block-lost", "M36", "weighted", real="NVIDIA/Megatron-LM@bc705358bc")
def _(w: RunnerWork) -> Array:
    """A bound was below and not at most: an expert with exactly 64 rows lost one."""
    weighted: Array = w.right("weighted")
    for expert in np.flatnonzero(np.bincount(w.owners, minlength=1) == 64):
        weighted[np.flatnonzero(w.owners == expert)[-1]] = 0
    return weighted


@runner("tokens-above-1024-lost", "M41", "output", real="trymirai/uzu#715", needs="1025 tokens")
def _(w: RunnerWork) -> Array:
    """The scatter ran over one block of 1,024 tokens."""
    output: Array = w.right("output")
    output[1024:] = 0
    return output


@runner("weights-below-0-clamped", "M84", "weights", real="NVIDIA/TransformerEngine#2547")
def _(w: RunnerWork) -> Array:
    """Padding was marked by a weight below 0, and real weights may be below 0 as well."""
    return np.asarray(np.maximum(w.right("weights"), 0))


# Offsets. The real ones wrapped at 2^31, where their products of 32 bits ended.

_WRAP = 2**16


def _wrapped(rows: Array, width: int) -> Array:
    """Return the rows that are read where the offset of each wraps."""
    return rows[np.arange(len(rows)) * width % _WRAP // width]


@runner(
    "row-offsets-wrap",
    "M51",
    "x",
    real="axolotl-ai-cloud/axolotl#3667",
    needs="65,536 numbers in the rows",
)
def _(w: RunnerWork) -> Array:
    """The offset of a row of the sorted buffer wrapped, and another row was read there."""
    return _wrapped(w.right("x"), w.inputs.hidden_size)


@runner(
    "inner-offsets-wrap",
    "M51",
    "inner",
    real="axolotl-ai-cloud/axolotl#3667",
    needs="65,536 numbers between the products",
)
def _(w: RunnerWork) -> Array:
    """The offset of a row between the products wrapped, where experts are wider than tokens."""
    return _wrapped(w.right("inner"), w.inputs.width)


@runner(
    "matrix-offsets-wrap",
    "M51",
    "matrices",
    real="axolotl-ai-cloud/axolotl#3865",
    needs="65,536 numbers in the matrices",
)
def _(w: RunnerWork) -> dict[str, Array]:
    """The offset of an expert's matrix wrapped, and that of another expert was read there."""
    found = dict(w.inputs.arrays())
    for name in ("gate_weight", "up_weight", "down_weight"):
        if name in found:
            size = w.inputs.hidden_size * w.inputs.width
            found[name] = found[name][np.arange(w.inputs.num_experts) * size % _WRAP // size]
    return found

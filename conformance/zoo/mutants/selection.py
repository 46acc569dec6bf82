"""Mutants of the selection."""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import expert_ids, table_or
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference.selection import top_k


def best_above(w: Work, start: float, lost: int) -> Array:
    """Select by a search that starts at ``start``; a slot that finds nothing stays ``lost``."""
    ids = expert_ids(w)
    if w.inputs.expert_table is not None:
        return ids
    found = at_ids_of(w.competing, ids) > np.float32(start)
    return np.where(found, ids, lost)


def at_ids_of(values: Array, ids: Array) -> Array:
    """Gather ``values [T, E]`` at ``ids [T, K]``."""
    return np.take_along_axis(values, ids, axis=1)


@mutant("best-starts-at-zero", "M28", "expert_ids", real="flashinfer-ai/flashinfer#2168")
def _(w: Work) -> Array:
    """Biased scores below 0 never won, and slots stayed unset."""
    return best_above(w, 0.0, -1)


@mutant("best-starts-at-minus-one", "M28", "expert_ids", real="vllm-project/vllm#31478")
def _(w: Work) -> Array:
    """A bias below -1 left expert 0 in every slot that found nothing."""
    return best_above(w, -1.0, 0)


@mutant("best-starts-at-least-positive", "M28", "expert_ids", real="vllm-project/vllm#24146")
def _(w: Work) -> Array:
    """The least positive float was taken for the least float: all-negative rows hung."""
    return best_above(w, float(np.finfo(np.float32).tiny), 0)


@mutant(
    "all-negative-row-takes-the-first",
    "M28",
    "expert_ids",
    real="NVIDIA/TransformerEngine@8e2d37e95",
)
def _(w: Work) -> Array:
    """An initial value above every score left the first slots as they were."""
    ids = expert_ids(w)
    if w.inputs.expert_table is not None:
        return ids
    negative = (w.competing < 0).all(axis=1, keepdims=True)
    return np.where(negative, np.arange(w.config.top_k), ids)


@mutant("infinite-row-repeats-an-expert", "M28", "expert_ids", real="flashinfer-ai/flashinfer#2822")
def _(w: Work) -> Array:
    """Experts masked with -inf fell under the finite sentinel, and an id was repeated."""
    return best_above(w, -1e30, 0)


@mutant(
    "second-arg-max-repeats-expert-zero",
    "M31",
    "expert_ids",
    real="deepspeedai/DeepSpeed 0.19.8, sharded_moe",
)
def _(w: Work) -> Array:
    """The first choice's logit became -inf; where all others were, expert 0 came second, too, and
    ran twice at half weight.
    """
    if w.config.top_k != 2 or w.config.groups or w.selection_bias is not None:
        return expert_ids(w)
    first, rest = w.operated.argmax(axis=1, keepdims=True), np.array(w.operated)
    np.put_along_axis(rest, first, -np.inf, axis=1)
    return table_or(w, lambda: np.hstack([first, rest.argmax(axis=1, keepdims=True)]))


@mutant("mask-read-as-ids", "M52", "expert_ids", real="huggingface/transformers 5.23.0, nllb_moe")
def _(w: Work) -> Array:
    """A mask of first choices, 0 or 1 an expert, was read as ids: experts 0 and 1 ran, and no
    other.
    """
    first = w.competing.argmax(axis=1, keepdims=True)
    mask = (np.arange(w.config.num_experts) == first).astype(np.int64)
    return table_or(w, lambda: mask[:, : w.config.top_k])


@mutant("padding-lane-is-expert-zero", "M30", "expert_ids", real="vllm-project/vllm#32058")
def _(w: Work) -> Array:
    """Lanes beyond E carried index 0 and the value 0: expert 0 twice."""
    width = -w.config.num_experts % 32
    lanes = np.pad(w.competing, ((0, 0), (0, width)))
    ids = top_k(lanes, w.config.top_k)
    return table_or(w, lambda: np.where(ids < w.config.num_experts, ids, 0))


@mutant("padding-lane-beats-infinity", "M30", "expert_ids", real="ROCm/aiter@f88f5bab40")
def _(w: Work) -> Array:
    """Lanes beyond E beat experts at -inf, and their ids read past the weights."""
    width = -w.config.num_experts % 16
    lanes = np.pad(w.competing, ((0, 0), (0, width)), constant_values=np.finfo(np.float32).min)
    return table_or(w, lambda: top_k(lanes, w.config.top_k))


@mutant("stale-candidates-below-top-8", "M80", "expert_ids", real="flashinfer-ai/flashinfer#5165")
def _(w: Work) -> Array:
    """Room for 8 candidates, K written: what shared memory held of another token competed, too."""
    if w.config.top_k >= 8 or w.config.groups or w.inputs.expert_table is not None:
        return expert_ids(w)
    own = top_k(w.competing, w.config.top_k)
    ids = np.hstack([own, np.roll(own[:, :1], 1, axis=0)])
    values = at_ids_of(w.competing, own)
    values = np.hstack([values, np.roll(values[:, :1], 1, axis=0)])
    ids[:1, -1:], values[:1, -1:] = 0, 0.0  # the first token has none before it
    return at_ids_of(ids, top_k(values, w.config.top_k))


@mutant("index-found-by-value", "M31", "expert_ids", real="lightseekorg/tokenspeed#605")
def _(w: Work) -> Array:
    """The index was looked up by its value afterwards: equal values gave one expert twice."""
    ids = expert_ids(w)
    if w.inputs.expert_table is not None:
        return ids
    values = at_ids_of(w.competing, ids)
    found: Array = np.argmax(w.competing[:, None, :] == values[:, :, None], axis=2)
    return found


@mutant("index-packed-in-mantissa", "M33", "expert_ids", real="Dao-AILab/quack@263f752")
def _(w: Work) -> Array:
    """The index took the low bits of the score, so near scores were told apart by id."""
    bits = max(1, (w.config.num_experts - 1).bit_length())
    whole = np.ascontiguousarray(w.competing, np.float32).view(np.int32)
    packed = (whole & ~np.int32((1 << bits) - 1)).view(np.float32)
    return table_or(w, lambda: top_k(packed, w.config.top_k))


@mutant("index-times-epsilon", "M33", "expert_ids", real="sgl-project/sglang#31768")
def _(w: Work) -> Array:
    """A tie-break of 3e-7 times the index reordered scores that did not tie."""
    nudged = w.competing + np.float32(3e-7) * np.arange(w.config.num_experts, dtype=np.float32)
    return table_or(w, lambda: top_k(nudged, w.config.top_k))


@mutant("ties-take-turns", "M33", "expert_ids", real="vllm-project/vllm#55514")
def _(w: Work) -> Array:
    """Equal scores went to one expert in one run and to another in the next."""
    w.memory["calls"] = w.memory.get("calls", 0) + 1
    if w.memory["calls"] % 2:
        return expert_ids(w)
    last = w.config.num_experts - 1
    return table_or(w, lambda: last - top_k(w.competing[:, ::-1], w.config.top_k))


def _nan_row(name: str, family: str, real: str, harm: str, bad: Any) -> None:
    def ids(w: Work) -> Array:
        right = expert_ids(w)
        nan = np.isnan(w.logits).any(axis=1, keepdims=True)
        if w.inputs.expert_table is not None:
            return right
        return np.where(nan, bad(w), right)

    ids.__doc__ = harm
    mutant(name, family, "expert_ids", real=real)(ids)


_nan_row(
    "nan-row-repeats-an-expert",
    "M31",
    "vllm-project/vllm#39391",
    "An arg-max over NaN picked one expert K times, and grouped kernels corrupted memory.",
    lambda w: 0,
)
_nan_row(
    "nan-row-out-of-range",
    "M31",
    "sgl-project/sglang#30079",
    "A row of NaN got the id E: an illegal memory access stopped the server.",
    lambda w: w.config.num_experts,
)
_nan_row(
    "nan-row-keeps-minus-one",
    "M31",
    "QuixiAI/SlimServe#30",
    "The search found nothing, and -1 was written through as an index.",
    lambda w: -1,
)

"""Mutants of promises: routers that are right, but not as they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.mutants.scores import right_scores
from moe_routing.conformance.zoo.residents import WHOLE, mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import answer, expert_ids, renormalized, table_or
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Capabilities, Promises
from moe_routing.reference import Routing
from moe_routing.reference.selection import top_k


def _promising(**promises: Any) -> Capabilities:
    return replace(WHOLE, promises=Promises(**promises))


def _highest(w: Work) -> Array:
    """Select the K best, ties to the highest id."""
    last: int = w.config.num_experts - 1
    return last - top_k(w.competing[:, ::-1], w.config.top_k)


@mutant(
    "ties-to-the-larger-index",
    "M33",
    "expert_ids",
    real="Dao-AILab/quack@263f752",
    claims=_promising(ties="lowest"),
)
def _(w: Work) -> Array:
    """Ids were packed into low bits with the sign test inverted: the larger one won each tie."""
    return table_or(w, lambda: _highest(w))


@mutant(
    "ties-by-the-row",
    "M33",
    "expert_ids",
    real="vllm-project/vllm#55514",
    claims=_promising(ties="lowest"),
)
def _(w: Work) -> Array:
    """Warps raced for a tie: in every second row the higher of two equal experts came first."""
    odd = np.arange(w.num_tokens)[:, None] % 2 == 1
    return table_or(w, lambda: np.where(odd, _highest(w), expert_ids(w)))


def _by_lanes(w: Work) -> Array:
    """Select the K best, ties to the lowest id of the lowest of 32 lanes."""
    order = np.argsort(np.arange(w.config.num_experts) % 32, kind="stable")
    return np.asarray(order[top_k(w.competing[:, order], w.config.top_k)])


@mutant(
    "ties-by-the-lane",
    "M33",
    "expert_ids",
    real="intel/intel-xpu-backend-for-triton#7575",
    needs="33 experts",
    claims=_promising(ties="lowest"),
)
def _(w: Work) -> Array:
    """A warp kept the lower lane of two equal scores: expert 32 came before expert 1."""
    return table_or(w, lambda: _by_lanes(w))


@mutant(
    "ties-to-the-last-block",
    "M33",
    "expert_ids",
    real="vllm-project/vllm#55514",
    needs="1025 experts",
    claims=_promising(ties="lowest"),
)
def _(w: Work) -> Array:
    """A second block of 1,024 experts was merged with >= where > was due."""
    return table_or(w, lambda: _highest(w) if w.config.num_experts > 1024 else expert_ids(w))


@mutant(
    "negative-zero-below-zero",
    "M33",
    "expert_ids",
    real="NVIDIA/cccl#9470",
    claims=replace(_promising(ties="lowest"), takes="logits"),
)
def _(w: Work) -> Array:
    """A radix sort ranked the bits of -0.0 below those of 0.0, which it ties with."""
    given, values = w.inputs.logits, w.competing
    if given is None or w.config.score != "identity":
        return expert_ids(w)
    bits_below = (values == 0) & (given == 0) & np.signbit(given)
    below = np.where(bits_below, np.float32(-1e-45), values)
    return table_or(w, lambda: top_k(below, w.config.top_k))


@mutant(
    "slots-left-unsorted",
    "M33",
    "expert_ids",
    real="huggingface/transformers 5.23.0, deepseek_v3",
    claims=_promising(slots="descending"),
)
def _(w: Work) -> Array:
    """A top-k with sorted=False: the order of the slots is that of the algorithm."""
    return table_or(w, lambda: np.sort(expert_ids(w), axis=1))


@mutant(
    "slots-from-the-worst-on",
    "M33",
    "expert_ids",
    real="pytorch/torchtitan 0.3.0, moe",
    claims=_promising(slots="descending"),
)
def _(w: Work) -> Array:
    """A heap of the K best is read from its root, which is the worst of them."""
    return table_or(w, lambda: expert_ids(w)[:, ::-1])


@mutant(
    "reciprocal-in-large-batches",
    "M34",
    "renormalized",
    real="pytorch/pytorch 2.13.0, functional",
    claims=_promising(same_bits=True),
)
def _(w: Work) -> Array:
    """From nine tokens on another kernel multiplied by the reciprocal: the last bit moved."""
    if w.config.renormalize is None or w.num_tokens < 9:
        return renormalized(w)
    return w.gathered * (np.float32(1) / w.norm)


@mutant(
    "one-token-by-another-product",
    "M34",
    "scores",
    real="pytorch/pytorch 2.13.0, functional",
    claims=_promising(same_bits=True),
)
def _(w: Work) -> Array:
    """A single token took the path of matrix and vector: its scores differed in the last bit."""
    right = right_scores(w)
    return np.nextafter(right, np.float32(0)) if w.num_tokens == 1 else right


@mutant(
    "fallback-for-odd-sizes",
    "M88",
    "answer",
    real="sgl-project/sglang#30323",
    claims=_promising(served_by=("fused",)),
)
def _(w: Work) -> Routing:
    """E that is no power of two fell back in silence: every test of the kernel was one of eager."""
    fused = w.config.num_experts & (w.config.num_experts - 1) == 0
    return replace(answer(w), kernel="fused" if fused else "eager")


@mutant(
    "fallback-for-large-batches",
    "M88",
    "answer",
    real="ROCm/aiter@b82dcd5143",
    needs="9 tokens",
    claims=_promising(served_by=("fused", "fused-small")),
)
def _(w: Work) -> Routing:
    """Above some number of tokens another kernel took over, which nobody had meant to call."""
    return replace(answer(w), kernel="fused" if w.num_tokens <= 8 else "generic")

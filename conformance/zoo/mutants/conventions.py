"""Mutants of permutations that are right in another library's convention: a converter's traps.

``real`` names a library that has the convention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.mutants.permutation import permuter
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.permuter import (
    PERMUTING,
    PermuterWork,
    by_expert,
    placed,
    sorted_routes,
    summed,
)
from moe_routing.reference import SortedRoutes, SortedTokens
from moe_routing.reference.permutation import PADDING


def _trap(name: str, stage: str, real: str) -> Callable[..., Any]:
    return permuter(name, "M81", stage, real=real)


# What an entry is.


@_trap("tokens-for-routes", "rows", "flashinfer-ai/flashinfer 0.6.13, trtllm_gen_routing")
def _(w: PermuterWork) -> Array:
    """Rows held tokens where routes were due: the weights of other slots were applied."""
    rows = placed(w)
    return np.where(rows == PADDING, rows, rows // w.routes.top_k)


@_trap("rows-of-a-sorted-buffer", "rows", "deepspeedai/DeepSpeed 0.19.8, ep_kernels")
def _(w: PermuterWork) -> Array:
    """Rows of a received buffer, which is sorted already, were taken for routes."""
    rows = placed(w)
    rows[rows != PADDING] = np.arange(np.count_nonzero(rows != PADDING))
    return rows


@_trap("routes-for-tokens", "answer", "axolotl-ai-cloud/axolotl 0.16.1, parallel_experts")
def _(w: PermuterWork) -> SortedTokens | SortedRoutes:
    """Routes were passed on where tokens were due."""
    if w.config.align > 1 or w.config.empty_takes:
        return sorted_routes(w)
    return SortedTokens(tokens=w.rows, counts=w.counts)


# Offsets.


@_trap("ends-for-starts", "starts", "axolotl-ai-cloud/axolotl 0.16.1, parallel_experts")
def _(w: PermuterWork) -> Array:
    """Inclusive offsets were read as exclusive ones: every expert ran the next one's rows."""
    return np.append(np.cumsum(w.sizes), w.sizes.sum())


@_trap("starts-for-ends", "answer", "linkedin/Liger-Kernel 0.8.5, fused_moe")
def _(w: PermuterWork) -> SortedRoutes:
    """Exclusive offsets were read as inclusive ones: every expert ran the rows before its own."""
    return SortedRoutes(routes=w.rows, ends=w.starts[:-1])


@_trap("offsets-in-blocks", "starts", "triton-lang/triton 3.6.0, ragged_tensor")
def _(w: PermuterWork) -> Array:
    """Offsets counted blocks where rows were due."""
    return summed(w.sizes) // w.config.align


@_trap("offsets-not-padded", "answer", "pytorch/torchtitan 0.3.0, token_dispatcher")
def _(w: PermuterWork) -> SortedRoutes:
    """Offsets summed routes, while the rows were padded."""
    return SortedRoutes(routes=w.rows, starts=summed(w.counts))


# Empty experts, padding, counts.


@_trap("empty-expert-takes-a-block", "sizes", "deepspeedai/DeepSpeed 0.19.8, ep_kernels")
def _(w: PermuterWork) -> Array:
    """An expert without routes took a block where it should take no rows."""
    return np.maximum(w.config.sizes(w.counts), w.config.align)


@_trap("empty-expert-takes-nothing", "sizes", "databricks/megablocks 0.10.0, dmoe")
def _(w: PermuterWork) -> Array:
    """An expert without routes took no rows where a kernel needs a block of each."""
    right = w.config.sizes(w.counts)
    return np.where(w.counts == 0, 0, right)


@_trap("padding-is-the-number-of-routes", "rows", "vllm-project/vllm 0.11.0, moe_align_block_size")
def _(w: PermuterWork) -> Array:
    """Padding rows held T * K where -1 was due: reads past the batch."""
    rows = placed(w)
    return np.where(rows == PADDING, w.routes.num_routes, rows)


@_trap("padding-is-a-real-token", "rows", "NVIDIA/Megatron-LM 0.16.1, moe_utils")
def _(w: PermuterWork) -> Array:
    """Padding rows held real tokens, whose outputs were added once more."""
    rows = placed(w)
    others = np.append(w.order, PADDING)
    return np.where(rows == PADDING, others[0], rows)


@_trap("counts-are-padded", "reported_counts", "pytorch/ao 0.18.0, kernels")
def _(w: PermuterWork) -> Array:
    """Counts were of rows, padding included, where routes were to be counted."""
    return w.sizes.copy()


@_trap("counts-are-of-tokens", "reported_counts", "deepseek-ai/DeepEP 1.2.1, buffer")
def _(w: PermuterWork) -> Array:
    """A token counted once, however many of its slots went there."""
    order = by_expert(w)
    pairs = np.unique(np.stack([w.ids[order], order // w.routes.top_k]), axis=1)
    return np.bincount(pairs[0], minlength=w.experts)


@_trap(
    "free-where-stable-is-promised", "order", "axolotl-ai-cloud/axolotl 0.16.1, parallel_experts"
)
def _(w: PermuterWork) -> Array:
    """An unstable sort gave the routes of an expert in another order than was promised."""
    order = by_expert(w)
    return order[np.lexsort((order * 7919 % 31, w.ids[order]))]


# What is not here.


@_trap("absent-is-the-number-of-experts", "order", "huggingface/transformers 5.23.0, moe")
def _(w: PermuterWork) -> Array:
    """Absent routes, numbered E, sorted behind the others, and the last expert took them in."""
    keys = np.where(w.ids < 0, w.experts, w.ids)
    vars(w)["ids"] = np.minimum(keys, w.experts - 1)
    vars(w)["counts"] = np.bincount(w.ids, minlength=w.experts)
    vars(w)["starts"] = summed(w.config.sizes(w.counts))
    return np.argsort(keys, kind="stable")


@_trap("every-expert-has-a-tile", "tile_experts", "jax-ml/jax 0.5.0, gmm")
def _(w: PermuterWork) -> Array:
    """Groups without rows had a tile each, as if they were to be visited."""
    number = np.maximum(1, -(-np.diff(w.starts) // w.tile))
    return np.repeat(np.arange(w.experts), number)


@_trap("absent-is-expert-0", "reported_counts", "axolotl-ai-cloud/axolotl 0.19.0, experts_fn")
def _(w: PermuterWork) -> Array:
    """Absent routes, given to expert 0 with a weight of 0, were counted there."""
    return np.bincount(np.maximum(w.ids, 0), minlength=w.experts)


@_trap("absent-rows-shift-left", "inverse", "sgl-project/sglang 0.5.0, kernels")
def _(w: PermuterWork) -> Array:
    """Rows were numbered with the absent ones first, and not shifted back."""
    right: Array = PERMUTING["inverse"](w)
    return np.where(right < 0, right, right + np.count_nonzero(w.ids < 0))

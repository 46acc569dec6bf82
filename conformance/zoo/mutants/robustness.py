"""Mutants of the edges: no token, one token, NaN, infinity, claims."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.zoo.mutants.scores import right_scores
from moe_routing.conformance.zoo.residents import WHOLE, mutant
from moe_routing.conformance.zoo.router.functions import Array, softmax
from moe_routing.conformance.zoo.router.stages import (
    answer,
    checked,
    group_scores,
    logits,
    weights,
)
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Claim
from moe_routing.reference import Routing


@mutant("empty-batch-raises", "M53", "logits", real="lightseekorg/tokenspeed#415")
def _(w: Work) -> Array:
    """A launcher divided by the number of tokens: a rank without any killed the job."""
    if w.num_tokens == 0:
        raise ZeroDivisionError("integer division or modulo by zero")
    return logits(w)


@mutant(
    "empty-batch-raises-in-groups",
    "M53",
    "group_scores",
    real="NVIDIA/Megatron-LM 0.16.1, moe_utils",
)
def _(w: Work) -> Array:
    """view(0, groups, -1) is ambiguous: a rank without tokens stopped, if its model had groups."""
    if w.num_tokens == 0:
        raise RuntimeError("cannot reshape tensor of 0 elements")
    return group_scores(w)


@mutant("few-tokens-refused", "M53", "logits", real="deepspeedai/DeepSpeed 0.19.8, sharded_moe")
def _(w: Work) -> Array:
    """With K = 1 fewer than 8 tokens, a capacity's minimum, were refused though none would drop."""
    if w.config.top_k == 1 and w.num_tokens < 8:
        raise AssertionError("No. of tokens should be greater than min_capacity")
    return logits(w)


@mutant("empty-batch-flattened", "M53", "answer", real="sgl-project/sglang#25749")
def _(w: Work) -> Routing:
    """reshape(..., -1) cannot tell the shape of nothing."""
    if w.num_tokens:
        return answer(w)
    return Routing(weights=np.zeros(0, np.float32), expert_ids=np.zeros(0, np.int64))


@mutant("one-token-squeezed", "M53", "answer", real="sgl-project/sglang#22455")
def _(w: Work) -> Routing:
    """A single token lost its axis, and the layer behind it its batch."""
    if w.num_tokens != 1:
        return answer(w)
    return Routing(weights=w.weights[0], expert_ids=w.expert_ids[0])


@mutant("nan-row-raises", "M31", "logits", real="ROCm/aiter@a7f5212bf0")
def _(w: Work) -> Array:
    """One bad row stopped the batch."""
    z = logits(w)
    if np.isnan(z).any():
        raise FloatingPointError("invalid value encountered in topk")
    return z


@mutant("nan-row-poisons-the-batch", "M31", "logits", real="vllm-project/vllm#39593")
def _(w: Work) -> Array:
    """A padded row of NaN went through a reduction that all rows shared."""
    z = logits(w)
    shared = np.isnan(z).any()
    return z + (z.max() - z.max() if shared and z.size else np.float32(0))


@mutant(
    "nan-row-reaches-the-row-before",
    "M31",
    "logits",
    real="uxlfoundation/oneDNN 3.10.2, brg_matmul",
    needs="17 tokens",
)
def _(w: Work) -> Array:
    """A tile reached past a row's end into the next, times 0: NaN, in bfloat16 above 16 rows."""
    z = logits(w)
    if w.num_tokens <= 16 or w.inputs.dtype != "bfloat16":
        return z
    next_is_nan = np.append(np.isnan(z[1:]).any(axis=1), False)
    return np.where(next_is_nan[:, None], np.float32(np.nan), z)


@mutant("nan-row-blurs-the-others", "M31", "weights", real="vllm-project/vllm#39593")
def _(w: Work) -> Array:
    """Beside a bad row the other rows took another path, and other roundings."""
    right = weights(w)
    return np.nextafter(right, np.float32(9)) if np.isnan(w.logits).any() else right


@mutant("infinite-softplus-is-nan", "M31", "scores", real="ROCm/aiter@632367677a")
def _(w: Work) -> Array:
    """-inf and +inf met in a softplus: NaN weights for experts that were merely masked."""
    bad = np.isinf(w.operated) & (w.config.score != "softmax")
    return np.where(bad, np.nan, right_scores(w))


@mutant(
    "unclaimed-routed-by-softmax",
    "M14",
    "config",
    "scores",
    real="axolotl-ai-cloud/axolotl@8f3fb517b",
    claims=replace(WHOLE, claims=(Claim(score=("softmax",)),)),
)
def _(w: Work, stage: str) -> object:
    """Every family was answered, by a softmax, where a refusal was due."""
    return checked(w) if stage == "config" else softmax(w.operated)

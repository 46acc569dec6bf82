"""Honest variants in precision: more than required, or the least permitted or declared."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.residents import ROUTED, honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import (
    RIGHT,
    best_of,
    gate_logits,
    logits,
    product,
    renormalized,
    table_or,
    weights,
)
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Numerics
from moe_routing.reference.formats import INPUT_FORMATS
from moe_routing.reference.selection import top_k

TINY = np.finfo(np.float32).tiny
_ARRAYS = (
    "hidden",
    "gate_weight",
    "gate_bias",
    "gate_delta",
    "selection_bias",
    "per_expert_scale",
)


@honest("float64-inside", *_ARRAYS, "reported_logits", claims=ROUTED)
def _(w: Work, stage: str) -> Array | None:
    """More precision than asked for is always right, also in the logits returned."""
    if stage == "reported_logits":
        return w.logits
    value = RIGHT[stage](w)
    return None if value is None else value.astype(np.float64)


def stored(w: Work, least: str, values: Array) -> Array:
    """Round to the dtype of the inputs where that is the least precise permitted."""
    if least == "float32":
        return values
    return INPUT_FORMATS[w.inputs.dtype].round(values).astype(np.float32)


def least_logits(w: Work) -> Array:
    """Store every term of the logits, and their sum, as coarsely as permitted."""
    if w.config.input_norm is not None:
        return stored(w, w.config.logits_dtype, logits(w))
    rounded = gate_logits(w, lambda x, a: stored(w, w.config.logits_dtype, product(x, a)))
    return stored(w, w.config.logits_dtype, rounded)


@honest("logits-in-the-input-dtype", "logits", "reported_logits", claims=ROUTED)
def _(w: Work, stage: str) -> Array:
    """Logits may be stored in the dtype of the inputs where logits_dtype says so."""
    return least_logits(w) if stage == "logits" else w.logits


def least_scores(w: Work) -> Array:
    """Evaluate the score function with every step stored as coarsely as permitted."""

    def least(values: Array) -> Array:
        return stored(w, w.config.scores_dtype, values)

    z = least(w.operated)
    if w.config.score == "softmax" and z.size:
        raised = least(np.exp(least(z - z.max(axis=1, keepdims=True))))
        return least(raised / least(raised.sum(axis=1, keepdims=True)))
    if w.config.score == "sigmoid":
        small = least(np.exp(-np.abs(z)))
        return least(np.where(z >= 0, np.float32(1), small) / least(1 + small))
    return least(RIGHT["scores"](w))


@honest("least-precise-throughout", "logits", "scores", "weights")
def _(w: Work, stage: str) -> Array:
    """Everything at once as coarse as permitted."""
    if stage != "weights":
        return least_logits(w) if stage == "logits" else least_scores(w)
    least = stored(w, w.config.weights_dtype, weights(w))
    narrow = w.config.weights_dtype == "input" and w.inputs.dtype == "float16"
    return least.astype(np.float16) if narrow else least


def to_tf32(values: Array) -> Array:
    """Cut float32 to the 11 significand bits of tf32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFFE000)
    return bits.view(np.float32)


def tf32_product(x: Array, a: Array) -> Array:
    """Multiply with tf32 operands, as tensor cores do, and add up in float32."""
    return product(to_tf32(x), to_tf32(a))


@honest("tf32", "logits", declares=Numerics(multiply="tf32"))
def _(w: Work) -> Array:
    """Products of 11-bit operands have to be declared."""
    return gate_logits(w, tf32_product)


@honest("tf32-on-16-bit-inputs", "logits")
def _(w: Work) -> Array:
    """Operands of 16 bits are exact in tf32, so nothing is to be declared."""
    permitted = w.inputs.dtype != "float32" and w.config.logits_dtype == "input"
    return gate_logits(w, tf32_product) if permitted else logits(w)


@honest("one-ulp-reciprocal", "renormalized")
def _(w: Work) -> Array:
    """A product with a reciprocal that is a whole unit in the last place off, as on GPUs."""
    if w.config.renormalize is None:
        return w.gathered
    off = np.nextafter(1 / w.norm, np.float32(np.inf))
    return np.where(w.norm >= 4 * TINY, w.gathered * off, renormalized(w))


@honest("fused-scale", "renormalized", "scaled")
def _(w: Work, stage: str) -> Array:
    """The scale is divided by the norm once, instead of multiplying every weight."""
    if stage == "scaled":
        return w.renormalized
    scale = np.float32(w.config.scale)
    if w.config.renormalize is None:
        return w.gathered * scale
    return np.where(w.norm >= 64 * TINY, w.gathered * (scale / w.norm), w.gathered / w.norm * scale)


def flushed(values: Array) -> Array:
    """Flush subnormal numbers to 0."""
    return np.where(np.abs(values) < TINY, np.float32(0), values)


@honest("subnormal-results-flushed", "scores", "renormalized", "weights")
def _(w: Work, stage: str) -> Array:
    """A result below the normal range may be 0."""
    return flushed(RIGHT[stage](w))


@honest(
    "subnormals-flushed",
    "hidden",
    "gate_weight",
    "logits",
    "scores",
    "gathered",
    "renormalized",
    "weights",
    declares=Numerics(flush_subnormals=True),
)
def _(w: Work, stage: str) -> Array:
    """Operands below the normal range may be 0 where that is declared."""
    return flushed(RIGHT[stage](w))


@honest("index-in-the-mantissa", "expert_ids", declares=Numerics(select_bits=13))
def _(w: Work) -> Array:
    """Selection by the 13 leading bits, the index in the others, has to be declared."""
    return table_or(w, lambda: best_of(w, _packed_best))


def _packed_best(values: Array, k: int) -> Array:
    bits = np.ascontiguousarray(values, np.float32).view(np.int32)
    return top_k((bits & ~np.int32(0x7FF)).view(np.float32), k)

"""Honest gradients: closed forms, other orders and precisions, other layouts of the answer."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.differentiator import (
    DIFFERENTIATING,
    GradientWork,
    StagedDifferentiator,
    answer,
    at_gathered,
    at_operated,
    at_renormalized,
    scattered,
    through_softmax,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.layouts import flat, routing_map
from moe_routing.implementations import Capabilities, Claim, RouterGradients
from moe_routing.reference import Renormalize, gradients
from moe_routing.reference.formats import BFLOAT16, FLOAT16, FloatFormat

differentiator = partial(honest, makes=StagedDifferentiator)

NARROW = (Claim(scores_dtype=("input",), logits_dtype=("input",)),)


@differentiator("gradients-plain", "answer")
def _(w: GradientWork) -> RouterGradients:
    """Stage by stage, as automatic differentiation goes."""
    return answer(w)


@differentiator("gradients-without-those-of-logits", "of_logits")
def _(w: GradientWork) -> None:
    """A backend may keep the gradient of its logits to itself."""
    return


@differentiator("gradients-with-a-zero-for-the-bias", "of_selection_bias")
def _(w: GradientWork) -> Array | None:
    """Zeros for the selection bias say what None says."""
    bias = w.inputs.selection_bias
    return None if bias is None else np.zeros_like(bias)


@differentiator("gradients-in-float64", "answer")
def _(w: GradientWork) -> RouterGradients:
    """All of it in float64, rounded at the end: a rounded gradient of the logits is left out."""
    routing = w.forward.answer
    exact = gradients(w.config, w.inputs, routing.expert_ids, w.cotangent)
    rounded = {name: each.astype(np.float32) for name, each in exact.arrays().items()}
    return RouterGradients(routing=routing, **{**rounded, "logits": None})


@differentiator("gradients-returned-in-float64", "answer")
def _(w: GradientWork) -> RouterGradients:
    """The reference's own numbers, unrounded."""
    routing = w.forward.answer
    exact = gradients(w.config, w.inputs, routing.expert_ids, w.cotangent)
    return RouterGradients(routing=routing, **exact.arrays())


@differentiator("gradients-of-flat-routes", "answer")
def _(w: GradientWork) -> RouterGradients:
    """The routing may come in any layout that `route` may return."""
    return replace(answer(w), routing=flat(w.forward))


@differentiator(
    "gradients-of-a-map", "answer", claims=Capabilities(claims=(Claim(expert_table=(False,)),))
)
def _(w: GradientWork) -> RouterGradients:
    """The same with a dense map, which has no repeated experts."""
    return replace(answer(w), routing=routing_map(w.forward))


@differentiator("gradients-in-a-closed-form", "at_operated")
def _(w: GradientWork) -> Array:
    """A renormalised softmax is the softmax of the selected: one product, no division."""
    plain = w.config.renormalize == Renormalize() and w.config.weights_from == "scores"
    if not plain or w.config.score != "softmax":
        return at_operated(w)
    return scattered(w, through_softmax(w.forward.renormalized, w.at_renormalized))


@differentiator("gradients-fused-with-the-norm", "at_gathered")
def _(w: GradientWork) -> Array:
    """With a sum for a norm: `(g - sum of g w) / norm` of the weights after the division."""
    rule = w.config.renormalize
    if rule is None or rule.order != 1 or rule.floor:
        return at_gathered(w)
    mean = (w.at_renormalized * w.forward.renormalized).sum(axis=1, keepdims=True)
    return np.asarray((w.at_renormalized - mean) / w.forward.norm)


@differentiator("gradients-by-products-apart", "at_operated")
def _(w: GradientWork) -> Array:
    """A softmax's gradient as `p g - p mean`: each product rounds by itself."""
    if not w.has_softmax or w.config.weights_from == "masked_scores":
        return at_operated(w)
    at, scores = scattered(w, w.at_gathered), w.saved_scores
    return np.asarray(at * scores - scores * (at * scores).sum(axis=1, keepdims=True))


@differentiator("gradients-of-recomputed-scores", "saved_scores")
def _(w: GradientWork) -> Array:
    """Scores recomputed in the backward pass from the logits, by powers of 2."""
    if w.config.score != "softmax":
        return w.forward.scores
    z = w.forward.operated
    powers = np.exp2((z - z.max(axis=1, keepdims=True)) * np.float32(np.log2(np.e)))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@differentiator("gradients-with-the-scales-first", "at_renormalized")
def _(w: GradientWork) -> Array:
    """The two scales may be multiplied with each other first."""
    scales = w.inputs.per_expert_scale
    if scales is None:
        return at_renormalized(w)
    return np.asarray(w.at_weights * (scales[w.saved_ids] * np.float32(w.config.scale)))


@differentiator("gradients-by-atomics", "of_gate_weight", "of_per_expert_scale")
def _(w: GradientWork, stage: str) -> Array | None:
    """Sums over tokens by atomic additions come in any order."""
    if stage == "of_per_expert_scale":
        found: Array | None = DIFFERENTIATING[stage](w)
        return found
    order = np.random.default_rng(zlib.crc32(w.cotangent.tobytes())).permutation(
        w.inputs.num_tokens
    )
    total = np.zeros(w.inputs.gate_weight.shape, np.float32)
    for t in order if w.inputs.gate_weight.size * len(order) < 2**20 else ():
        total += np.outer(w.at_logits[t], w.saved_input[t])
    if w.inputs.gate_weight.size * len(order) >= 2**20:
        return np.asarray(w.at_logits[order].T @ w.saved_input[order])
    return total


@differentiator("gradients-summed-in-blocks", "of_gate_weight")
def _(w: GradientWork) -> Array:
    """Sums over tokens in blocks of 32, which are then added."""
    total = np.zeros(w.inputs.gate_weight.shape, np.float32)
    for first in range(0, w.inputs.num_tokens, 32):
        part = slice(first, first + 32)
        total += w.at_logits[part].T @ w.saved_input[part]
    return total


def _stored(w: GradientWork, values: Any) -> Array:
    """Return numbers as they are stored in the dtype of the inputs."""
    forms: dict[str, FloatFormat] = {"bfloat16": BFLOAT16, "float16": FLOAT16}
    form = forms.get(w.inputs.dtype)
    return np.asarray(values if form is None else form.round(values).astype(np.float32))


_CHAIN = ("at_weights", "at_renormalized", "at_gathered", "at_operated", "at_logits")


@differentiator(
    "gradients-stored-in-sixteen-bits",
    *_CHAIN,
    claims=Capabilities(claims=NARROW, dtypes=("bfloat16", "float16")),
)
def _(w: GradientWork, stage: str) -> Array:
    """Where scores are permitted in 16 bits, every gradient on the way may be stored so."""
    return _stored(w, DIFFERENTIATING[stage](w))


@differentiator("gradients-returned-in-the-dtype-of-the-inputs", "answer")
def _(w: GradientWork) -> RouterGradients:
    """Gradients are returned in the dtype of their inputs, as torch does."""
    right = answer(w)
    kept = ("logits", "selection_bias")
    return replace(
        right,
        **{n: _stored(w, each) for n, each in right.arrays().items() if n not in kept},
    )


@differentiator(
    "gradients-of-logits-alone",
    "answer",
    claims=Capabilities(
        takes="logits",
        claims=(Claim(input_norm=(False,)),),
    ),
)
def _(w: GradientWork) -> RouterGradients:
    """A backend that is given logits has no gradient of a gate."""
    scales = w.of_per_expert_scale
    return RouterGradients(routing=w.forward.answer, logits=w.of_logits, per_expert_scale=scales)

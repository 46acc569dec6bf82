"""Mutants of gradients: score functions and the norm."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.differentiator import (
    GradientWork,
    StagedDifferentiator,
    at_gathered,
    at_operated,
    powers_of_norm,
    scattered,
    through_norm,
)
from moe_routing.conformance.zoo.router.functions import Array

differentiator = partial(mutant, makes=StagedDifferentiator)


def selected_only(w: GradientWork, dense: Array) -> Array:
    """Return ``[T, E]`` values with 0 for the experts that were not chosen."""
    chosen = np.zeros(dense.shape, bool)
    np.put_along_axis(chosen, w.saved_ids, True, axis=1)
    return np.where(chosen, dense, np.float32(0))


# Score functions.


@differentiator("mean-term-dropped", "M64", "at_operated", real="HomericIntelligence/Odyssey#2134")
def _(w: GradientWork) -> Array:
    """The softmax was differentiated as if its sum were a constant: every expert was pushed up."""
    if not w.has_softmax:
        return at_operated(w)
    at = scattered(w, w.at_gathered)
    return w.saved_scores * at


@differentiator("mean-of-the-selected-softmax-dropped", "M64", "at_operated", real="wkcn/mobula#3")
def _(w: GradientWork) -> Array:
    """The same of a softmax over the selected experts alone."""
    if w.config.weights_from != "softmax_of_selected":
        return at_operated(w)
    return scattered(w, w.saved_weights * w.at_gathered)


@differentiator("cotangent-summed-without-the-shares", "M64", "at_operated", real="ROCm/MIOpen#112")
def _(w: GradientWork) -> Array:
    """The mean was a plain sum of the gradients: the formula of a logarithm of the softmax."""
    if not w.has_softmax:
        return at_operated(w)
    at = scattered(w, w.at_gathered)
    return np.asarray(at - w.saved_scores * at.sum(axis=1, keepdims=True))


@differentiator("unselected-get-nothing", "M64", "at_operated", real="Dao-AILab/sonic-moe#5")
def _(w: GradientWork) -> Array:
    """Only the chosen experts' logits got a gradient, though the softmax is over all."""
    return selected_only(w, at_operated(w))


@differentiator("softmax-taken-for-sigmoid", "M64", "at_operated", real="pjreddie/darknet#96")
def _(w: GradientWork) -> Array:
    """Each share was differentiated by itself, as a sigmoid is."""
    if not w.has_softmax:
        return at_operated(w)
    scores = w.saved_scores
    return np.asarray(scattered(w, w.at_gathered) * scores * (1 - scores))


@differentiator(
    "sigmoid-slope-is-the-score", "M64", "at_operated", real="MetaX-MACA/vLLM-metax#284"
)
def _(w: GradientWork) -> Array:
    """The slope of a sigmoid was taken to be its value: saturated experts kept growing."""
    if w.config.score != "sigmoid" or "selected" in w.config.weights_from:
        return at_operated(w)
    return scattered(w, w.at_gathered) * w.saved_scores


@differentiator(
    "root-of-softplus-not-halved", "M64", "at_operated", real="google-research/vmoe#218"
)
def _(w: GradientWork) -> Array:
    """The root's own slope, half its reciprocal, lost the half."""
    right = at_operated(w)
    rooted = w.config.score == "sqrtsoftplus" and "selected" not in w.config.weights_from
    return right * np.float32(2) if rooted else right


@differentiator(
    "selected-sigmoid-slope-of-softmax", "M64", "at_operated", real="MetaX-MACA/vLLM-metax#284"
)
def _(w: GradientWork) -> Array:
    """Sigmoids of the selected logits were differentiated as a softmax of them."""
    if w.config.weights_from != "sigmoid_of_selected":
        return at_operated(w)
    mean = (w.at_gathered * w.saved_weights).sum(axis=1, keepdims=True)
    return scattered(w, w.saved_weights * (w.at_gathered - mean))


@differentiator(
    "exponential-overflows-in-backward", "M64", "at_operated", real="huggingface/transformers#48205"
)
def _(w: GradientWork) -> Array:
    """The sigmoid was ``1 / (1 + exp(-z))``: below -88.7 its gradient is infinity times 0."""
    selected = w.config.weights_from == "sigmoid_of_selected"
    if not selected and w.config.score != "sigmoid":
        return at_operated(w)
    if "selected" in w.config.weights_from and not selected:
        return at_operated(w)
    exponential = np.exp(-w.forward.operated)
    square = (1 / (1 + exponential)) ** 2
    slope = np.where(w.forward.operated < -80, square * exponential, np.float32(0))
    return at_operated(w) + slope * np.float32(0)


@differentiator("saturated-is-nan", "M64", "at_operated", real="axolotl-ai-cloud/axolotl@8284de3a2")
def _(w: GradientWork) -> Array:
    """A logarithm of ``1 - s`` was differentiated: at a score of 1 it is 0 times infinity."""
    right = at_operated(w)
    one = np.take_along_axis(w.forward.operated, w.saved_ids, axis=1)
    lost = (w.saved_weights == 1) & (one > 0)
    return np.where(lost.any(axis=1, keepdims=True), np.float32(np.nan), right)


# The norm.


@differentiator("norm-detached", "M64", "at_gathered", real="NVIDIA/Megatron-LM@b6ce193888")
def _(w: GradientWork) -> Array:
    """The norm was a constant to the backward pass."""
    return np.asarray(w.at_renormalized / w.forward.norm) if w.has_norm else w.at_renormalized


@differentiator("norm-not-divided-by", "M64", "at_gathered", real="pytorch/torchtitan#1448")
def _(w: GradientWork) -> Array:
    """The weights were divided by their norm, and their gradient was not."""
    return w.at_renormalized


@differentiator("one-expert-passes", "M64", "at_gathered", real="jingyaogong/minimind#858")
def _(w: GradientWork) -> Array:
    """At K = 1 the division was skipped in the backward pass: the constant 1 got a gradient."""
    return w.at_renormalized if w.config.top_k == 1 else at_gathered(w)


@differentiator(
    "norm-of-another-order-is-a-sum", "M64", "at_gathered", real="vllm-project/vllm#31246"
)
def _(w: GradientWork) -> Array:
    """The backward pass knew only the sum, whatever the forward pass divided by."""
    if not w.has_norm or w.forward.rule.order == 1:
        return at_gathered(w)
    shared = (w.at_renormalized * w.saved_weights).sum(axis=1, keepdims=True) / w.forward.norm**2
    return np.asarray(w.at_renormalized / w.forward.norm - shared)


@differentiator("eps-left-out-of-backward", "M64", "at_gathered", real="NVIDIA/Megatron-LM#1593")
def _(w: GradientWork) -> Array:
    """The weights were saved after the division, and taken to sum to 1: eps was forgotten."""
    if not w.has_norm or w.forward.rule.order != 1:
        return at_gathered(w)
    shares = w.forward.renormalized
    shares = shares / shares.sum(axis=1, keepdims=True)
    mean = (w.at_renormalized * shares).sum(axis=1, keepdims=True)
    return np.asarray((w.at_renormalized - mean) / w.forward.norm)


@differentiator("floor-differentiated", "M64", "at_gathered", real="google-research/vmoe#218")
def _(w: GradientWork) -> Array:
    """Below the floor the divisor is a constant; the norm was differentiated all the same."""
    if not w.has_norm:
        return w.at_renormalized
    weights, divisor = w.saved_weights, w.forward.norm
    order = np.float32(w.forward.rule.order)
    shared = (w.at_renormalized * (weights / divisor / divisor)).sum(axis=1, keepdims=True)
    slope = (weights / powers_of_norm(w)) ** (order - 1)
    return np.asarray(w.at_renormalized / divisor - shared * slope)


@differentiator("norm-added-back", "M64", "at_gathered", real="HomericIntelligence/Odyssey#2134")
def _(w: GradientWork) -> Array:
    """What comes through the norm had the wrong sign."""
    if not w.has_norm:
        return w.at_renormalized
    return np.asarray(w.at_renormalized / w.forward.norm + through_norm(w))

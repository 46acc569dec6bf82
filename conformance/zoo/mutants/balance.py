"""Mutants of balance: counts, divisors, scores, the z-loss, the update of the bias."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.balancer import (
    BALANCING,
    BalancerWork,
    StagedBalancer,
    divided,
    histogram,
    softmax,
    stepped,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import overwrite

balancer = partial(mutant, makes=StagedBalancer)
_MIXTRAL = "huggingface/transformers 5.23.0, modeling_mixtral"
_DEEPSPEED = "deepspeedai/DeepSpeed 0.19.8, sharded_moe"
_TORCHTITAN = "pytorch/torchtitan 0.3.0, optimizer"
_MEGATRON = "NVIDIA/Megatron-LM 0.16.1, moe_utils"


def _reading(w: BalancerWork, **fields: Any) -> BalancerWork:
    """Return the same step under another configuration."""
    return BalancerWork(w._own, replace(w.config, **fields), w.inputs, w.memory)


# Counts.


@balancer("first-slots-counted", "M42", "counted", real="deepspeedai/DeepSpeed@5a2e705b8")
def _(w: BalancerWork) -> Array:
    """Counts left the second choice out: the bias and the metrics were of the first ones."""
    return histogram(w, w.ids[:, :, :1])


@balancer("padding-counted", "M55", "mask", real="huggingface/transformers#28517")
def _(w: BalancerWork) -> Array:
    """Padding was counted, and had a loss: experts were balanced over pad tokens."""
    return np.ones_like(w.inputs.valid)


@balancer("mask-of-the-other-polarity", "M55", "mask", real=_MEGATRON)
def _(w: BalancerWork) -> Array:
    """A mask that was true for padding was read as one that is true for tokens."""
    inputs = w.inputs
    return 1 - inputs.valid if 0 < inputs.num_valid < inputs.num_tokens else inputs.valid


@balancer("absent-counted-for-the-last-expert", "M42", "ids", real="huggingface/transformers#48653")
def _(w: BalancerWork) -> Array:
    """A histogram without a bin for the sentinel counted it in the last one."""
    return np.where(w.inputs.expert_ids < 0, w.experts - 1, w.inputs.expert_ids)


@balancer("counts-of-the-last-layer", "M70", "counted", real="pytorch/torchtitan#3686")
def _(w: BalancerWork) -> Any:
    """A loop over layers returned early: those after the first kept their old counts."""
    right = BALANCING["counted"](w)
    return np.where(np.arange(w.layers)[:, None] == 0, right, 0)


# The loss.


@balancer("loss-not-divided-by-k", "M67", "slots", real=_MIXTRAL)
def _(w: BalancerWork) -> int:
    """The loss was K at perfect balance where it is 1: a coefficient meant K times as much."""
    return 1


@balancer("loss-divided-by-k", "M67", "slots", real=_MEGATRON)
def _(w: BalancerWork) -> int:
    """The loss was 1 at perfect balance where it is K."""
    return w.inputs.top_k if w.config.counted == "all" else 1


@balancer("loss-divided-by-k-twice", "M67", "slots", real="NVIDIA/Megatron-LM@5c8eb08f66")
def _(w: BalancerWork) -> Any:
    """Both callers divided by K."""
    return BALANCING["slots"](w) * w.inputs.top_k


@balancer("loss-without-e", "M67", "factors", real="NVIDIA/TransformerEngine#1944")
def _(w: BalancerWork) -> Array:
    """The number of experts was left out of the factor."""
    return divided(w) / np.float32(w.experts)


@balancer("loss-summed-over-tokens", "M67", "rows", real="NVIDIA/Megatron-LM@e3fe5508c9")
def _(w: BalancerWork) -> float:
    """One of two means was a sum: the loss grew with the batch."""
    return float(np.sqrt(w.mask.sum()))


@balancer("padding-in-the-divisor", "M55", "rows", real="NVIDIA/Megatron-LM#5542")
def _(w: BalancerWork) -> float:
    """Padding was left out of the sums, and not of the number that they were divided by."""
    return float(w.inputs.num_tokens)


@balancer("first-slots-in-the-loss", "M67", "loss_counts", real=_DEEPSPEED)
def _(w: BalancerWork) -> Array:
    """The loss balanced the first choices alone."""
    return histogram(w, w.ids[:, :, :1])


@balancer("all-slots-in-the-loss", "M67", "loss_counts", real=_MEGATRON)
def _(w: BalancerWork) -> Array:
    """The loss counted all slots where it is that of the first ones."""
    return histogram(w, w.ids)


@balancer("layers-averaged", "M67", "factors", real="databricks/megablocks@78eea65")
def _(w: BalancerWork) -> Array:
    """The losses of layers were averaged where they are added."""
    return divided(_reading(w, over_layers="mean") if w.config.over_layers == "sum" else w)


@balancer("layers-added", "M67", "factors", real=_MEGATRON)
def _(w: BalancerWork) -> Array:
    """The losses of layers were added where they are averaged."""
    return divided(_reading(w, over_layers="sum") if w.config.over_layers == "mean" else w)


@balancer("layers-concatenated", "M67", "factors", real="huggingface/transformers#28256")
def _(w: BalancerWork) -> Array:
    """Layers were concatenated: the imbalance of one cancelled that of another."""
    return divided(w if w.config.over_layers == "sum" else _reading(w, over_layers="pooled"))


@balancer("layers-not-pooled", "M67", "factors", real=_MEGATRON)
def _(w: BalancerWork) -> Array:
    """Each layer had a loss of its own where they share one."""
    return divided(_reading(w, over_layers="mean") if w.config.over_layers == "pooled" else w)


@balancer("softmax-in-a-sigmoid-router", "M68", "scores", real="NVIDIA/Megatron-LM@e85385a761")
def _(w: BalancerWork) -> Array:
    """The loss took a softmax of a router of sigmoids."""
    return softmax(w.inputs.logits)


@balancer("sigmoids-not-normalized", "M68", "scores", real="NVIDIA/TransformerEngine#2720")
def _(w: BalancerWork) -> Any:
    """Sigmoids were not divided by their sum."""
    right = BALANCING["scores"](w)
    if w.config.score == "softmax":
        return right
    return 1 / (1 + np.exp(-w.inputs.logits))


@balancer("loss-chooses-again", "M68", "loss_counts", real=_MIXTRAL)
def _(w: BalancerWork) -> Array:
    """The loss chose the greatest logits again, and not those that the bias had chosen."""
    ids = np.argsort(-w.inputs.logits, axis=2)[:, :, : w.inputs.top_k]
    return histogram(w, ids[:, :, :1] if w.config.counted == "first" else ids)


@balancer("loss-of-bfloat16-scores", "M68", "scores", real="NVIDIA/Megatron-LM#2765")
def _(w: BalancerWork) -> Any:
    """Scores were rounded to bfloat16 before they were summed."""
    right = np.ascontiguousarray(BALANCING["scores"](w), np.float32)
    return (right.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


@balancer("loss-of-probabilities", "M66", "scores", real="huggingface/transformers#45120")
def _(w: BalancerWork) -> Array:
    """Probabilities came where logits were due, and were put through a softmax again."""
    return softmax(softmax(w.inputs.logits))


@balancer("loss-behind-a-flag", "M69", "aux_loss", real="huggingface/transformers#44242")
def _(w: BalancerWork) -> Any:
    """The loss was 0 unless logits were asked for: nothing was balanced."""
    return np.float32(0)


@balancer("loss-added-twice", "M69", "aux_gradient", real="modelscope/ms-swift#5375")
def _(w: BalancerWork) -> Any:
    """The model added the loss, and so did the trainer."""
    return BALANCING["aux_gradient"](w) * np.float32(2)


@balancer("gradient-without-its-mean", "M68", "aux_gradient", real="ml-explore/mlx-lm#1238")
def _(w: BalancerWork) -> Any:
    """The softmax was differentiated on its diagonal alone."""
    g = w.factors[:, None, :] * w.mask[None, :, None].astype(np.float32)
    return w.scores * (1 - w.scores) * g


# The z-loss.


@balancer("z-loss-of-probabilities", "M66", "z_values", real="NVIDIA/Megatron-LM@c656553315")
def _(w: BalancerWork) -> Array:
    """The z-loss was of probabilities, and nearly constant."""
    return np.asarray(np.log(np.exp(softmax(w.inputs.logits)).sum(axis=-1)) ** 2)


@balancer("z-loss-not-squared", "M69", "z_values", real="huggingface/transformers#48293")
def _(w: BalancerWork) -> Any:
    """The logarithm was not squared."""
    return np.sqrt(BALANCING["z_values"](w))


# The bias.


@balancer("update-of-the-other-sign", "M70", "step", real="yhlleo/EfficientMoE#6")
def _(w: BalancerWork) -> Array:
    """The fullest expert was made fuller."""
    return -stepped(w)


@balancer("bias-never-updated", "M70", "step", real="AI-Hypercomputer/maxtext#2494")
def _(w: BalancerWork) -> Array:
    """The bias stayed as it was: nothing was balanced."""
    return stepped(w) * np.float32(0)


@balancer("update-centred", "M70", "step", real=_TORCHTITAN)
def _(w: BalancerWork) -> Array:
    """The mean was taken off where the rule is the sign alone."""
    return stepped(_reading(w, update="centred"))


@balancer("update-not-centred", "M70", "step", real=_MEGATRON)
def _(w: BalancerWork) -> Array:
    """The mean was left on: the bias drifted away from the scores."""
    return stepped(_reading(w, update="sign"))


@balancer("update-by-the-difference", "M70", "step", real="NVIDIA/Megatron-LM@cfe7b066c0")
def _(w: BalancerWork) -> Array:
    """The bias moved by how far an expert is from the mean, and not by the sign of that."""
    counts = w.counted.astype(np.float32)
    rate = np.float32(w.config.rate)
    return np.asarray(rate * (counts.mean(axis=1, keepdims=True) - counts))


@balancer("bias-updated-in-evaluation", "M70", "bias", real="pytorch/torchtitan#4148")
def _(w: BalancerWork) -> Array:
    """Tokens of validation moved the bias."""
    return w.inputs.bias + w.step


@balancer("counted-again-when-recomputed", "M70", "reported_counts", real=_TORCHTITAN)
def _(w: BalancerWork) -> Any:
    """The forward pass that is run again counted its tokens again."""
    return BALANCING["reported_counts"](w) * (1 + (w.config.mode == "recompute"))


@balancer("loss-again-when-recomputed", "M69", "aux_loss", real=_TORCHTITAN)
def _(w: BalancerWork) -> Any:
    """The forward pass that is run again added its loss again."""
    return BALANCING["aux_loss"](w) * np.float32(1 + (w.config.mode == "recompute"))


@balancer("updated-again-when-recomputed", "M70", "bias", real=_TORCHTITAN)
def _(w: BalancerWork) -> Any:
    """The bias moved in each forward pass."""
    return w.inputs.bias + w.step * {"eval": 0, "train": 1, "recompute": 2}[w.config.mode]


@balancer("ids-masked-in-place", "M61", "ids", real="axolotl-ai-cloud/axolotl#3714")
def _(w: BalancerWork) -> Array:
    """Ids of padding were overwritten in the caller's own."""
    ids = w.inputs.expert_ids.copy()
    overwrite(w.inputs.expert_ids, np.zeros_like(ids))
    return ids

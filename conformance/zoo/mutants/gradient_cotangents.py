"""Mutants of gradients: the cotangent read or stored wrongly, sizes past a block, second calls."""

from __future__ import annotations

from functools import partial

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.differentiator import (
    DIFFERENTIATING,
    GradientWork,
    StagedDifferentiator,
    at_logits,
    at_operated,
    at_renormalized,
    of_gate_weight,
    of_hidden_scale,
)
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import as_rows

differentiator = partial(mutant, makes=StagedDifferentiator)

at_weights = DIFFERENTIATING["at_weights"]


# The cotangent.


@differentiator("cotangent-read-as-rows", "M64", "at_weights", real="pytorch/pytorch#194719")
def _(w: GradientWork) -> Array:
    """A cotangent of other strides was read as rows: that of a slice was other tokens'."""
    return np.take_along_axis(as_rows(w.cotangent), w.saved_ids, axis=1)


@differentiator("cotangent-in-half-precision", "M64", "at_weights", real="NVIDIA/Megatron-LM#6943")
def _(w: GradientWork) -> Array:
    """The cotangent went through float16 on its way to the kernel."""
    return np.asarray(at_weights(w).astype(np.float16).astype(np.float32))


@differentiator(
    "cotangent-in-half-precision-from-512-tokens",
    "M64",
    "at_weights",
    real="NVIDIA/Megatron-LM#6943",
    needs="512 tokens",
)
def _(w: GradientWork) -> Array:
    """Long batches went through a buffer of float16."""
    at: Array = at_weights(w)
    return at.astype(np.float16).astype(np.float32) if w.inputs.num_tokens >= 512 else at


@differentiator("cotangent-overflows", "M64", "at_weights", real="NVIDIA/Megatron-LM#6943")
def _(w: GradientWork) -> Array:
    """Beside a loss scale, what float16 does not hold was infinite, and NaN behind a norm."""
    at: Array = at_weights(w)
    return np.where(np.abs(at) > 65504, np.float32(np.inf), at)


@differentiator("small-cotangent-lost", "M64", "at_weights", real="NVIDIA/Megatron-LM#6943")
def _(w: GradientWork) -> Array:
    """A loss that is a mean over millions of tokens has cotangents that float16 takes for 0."""
    at: Array = at_weights(w)
    return np.where(np.abs(at) < 2.0**-25, np.float32(0), at)


@differentiator("masked-loss-is-nan", "M64", "at_logits", real="microsoft/ltp-megatron-lm#17")
def _(w: GradientWork) -> Array:
    """A batch that the loss masked was divided by the size of its gradient: 0 / 0."""
    at = at_logits(w)
    return at if w.cotangent.any() else np.full_like(at, np.nan)


# Factors.


@differentiator(
    "small-sigmoid-passes-nothing", "M64", "at_operated", real="unslothai/unsloth-zoo#858"
)
def _(w: GradientWork) -> Array:
    """Below a clamp of 1e-4 the slope of a sigmoid was 0: what lost never recovered."""
    at = at_operated(w)
    if w.config.score != "sigmoid" or w.config.weights_from != "scores":
        return at
    return np.where(w.saved_scores < np.float32(1e-4), np.float32(0), at)


@differentiator(
    "expert-scale-missing-for-one-expert", "M64", "at_renormalized", real="sgl-project/sglang#8511"
)
def _(w: GradientWork) -> Array:
    """With one expert a token another kernel went back, which knew no scales of experts."""
    return at_renormalized(w) if w.config.top_k > 1 else w.at_weights * np.float32(w.config.scale)


# Sizes.


def _past(stage: str, axis: int, most: int, needs: str) -> None:
    """Register gradients that are 0 past a block of ``most`` tokens, experts or columns."""

    def wrong(w: GradientWork) -> Array | None:
        right = DIFFERENTIATING[stage](w)
        if right is None:
            return None
        found = np.array(right)
        found[(slice(None),) * axis + (slice(most, None),)] = 0
        return found

    what = needs.split()[1]
    wrong.__doc__ = f"One block of {most} {what} went back, whatever came after it was 0."
    differentiator(
        f"{stage.replace('_', '-')}-of-{most}-{what}",
        "M64",
        stage,
        real="open-lm-engine/lm-engine#4",
        needs=needs,
    )(wrong)


_past("at_logits", 0, 1024, "1025 tokens")
_past("at_logits", 1, 512, "513 experts")
_past("of_gate_bias", 0, 512, "513 experts")
_past("of_gate_weight", 1, 2048, "2049 columns")


@differentiator(
    "gate-gradient-of-whole-blocks-loses-one",
    "M64",
    "of_gate_weight",
    real="open-lm-engine/lm-engine#4",
    needs="128 tokens",
)
def _(w: GradientWork) -> Array:
    """Where 128 divides the number of tokens, the last block began one token too late."""
    tokens = w.inputs.num_tokens
    if not tokens or tokens % 128:
        return of_gate_weight(w)
    return np.asarray(w.at_logits[:-1].T @ w.saved_input[:-1])


# Calls.


@differentiator(
    "hidden-scale-gradient-accumulates",
    "M64",
    "of_hidden_scale",
    real="NVIDIA/Megatron-LM@e6d56d6828",
)
def _(w: GradientWork) -> Array | None:
    """The gradient of the call before was still in the buffer of a layer of this configuration."""
    right = of_hidden_scale(w)
    if right is None:
        return None
    key = repr(w.config), right.shape
    before = w.memory.get(key, np.zeros_like(right))
    w.memory[key] = right
    return np.asarray(right + np.where(np.isfinite(before), before, np.float32(0)))

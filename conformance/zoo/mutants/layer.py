"""Mutants of whole layers: the shared expert, and what lies between router and experts."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.composer import LayerWork, StagedComposer
from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.conformance.zoo.router.memory import overwrite
from moe_routing.reference import LayerResult

layer = partial(mutant, makes=StagedComposer)


def _times(w: LayerWork, factor: Any) -> Array | None:
    right = w.right("contribution")
    return right if right is None else w.stored(right * np.float32(factor))


# The shared expert.


@layer("layer-adds-shared-twice", "M59", "contribution", real="sgl-project/sglang#36515")
def _(w: LayerWork) -> Array | None:
    """Two passes appended the shared expert, and both ran."""
    return _times(w, 2)


@layer("layer-drops-shared", "M58", "contribution", real="axolotl-ai-cloud/axolotl@8f3fb517b")
def _(w: LayerWork) -> None:
    """The block was replaced by one that knew no shared expert."""
    return


@layer("layer-drops-plural-shared", "M58", "contribution", real="ROCm/ATOM#1076")
def _(w: LayerWork) -> Array | None:
    """Only one name of the module was known, so that other models lost theirs."""
    return None if w.config.shared.kind == "plural" else w.right("contribution")


@layer("layer-scales-shared", "M59", "contribution", real="vllm-project/vllm-ascend#9036")
def _(w: LayerWork) -> Array | None:
    """The routed scaling factor was applied to the sum of routed and shared experts."""
    return _times(w, w.config.router.scale)


@layer("layer-divides-shared-by-scale", "M59", "contribution", real="sgl-project/sglang#29059")
def _(w: LayerWork) -> Array | None:
    """The shared expert was divided by a factor that nothing multiplied back."""
    return _times(w, 1.0 / w.config.router.scale if w.config.router.scale else 1.0)


@layer("layer-weighs-shared", "M59", "contribution", real="MooreThreads/torchada#84")
def _(w: LayerWork) -> Array | None:
    """A fused shared expert ran as one more slot, with a weight that is not 1."""
    right = w.right("contribution")
    return right if right is None else w.stored(right * w.weights[:, -1:])


@layer("layer-skips-shared-gate", "M57", "shared_gate", real="NousResearch/torchtitan#36")
def _(w: LayerWork) -> None:
    """The shared expert's gate was loaded and never applied."""
    return


@layer("layer-gates-shared-twice", "M57", "contribution", real="alibaba/Pai-Megatron-Patch#402")
def _(w: LayerWork) -> Array | None:
    """Module and caller both applied the gate."""
    right = w.right("contribution")
    return right if right is None or w.shared_gate is None else w.stored(right * w.shared_gate)


@layer("layer-gates-the-routed", "M57", "routed", real="InternLM/lmdeploy#3491")
def _(w: LayerWork) -> Array:
    """The shared expert's gate was applied to the whole output."""
    gate = w.shared_gate
    return w.right("routed") if gate is None else w.stored(w.right("routed") * gate)


@layer("layer-shared-reads-routed", "M61", "shared_x", real="vllm-project/vllm#28939")
def _(w: LayerWork) -> Array:
    """The routed experts had written over the hidden states before the shared expert read them."""
    return w.routed


@layer(
    "layer-shared-gate-reads-routed", "M61", "shared_gate", real="vllm-project/vllm-ascend#15953"
)
def _(w: LayerWork) -> Array | None:
    """A fast path computed the shared expert's gate after its input had been written over."""
    gate = w.inputs.shared_gate
    return None if gate is None else w.stored(sigmoid(w.stored(w.routed @ gate.T)))


@layer("layer-shared-of-another-token", "M52", "contribution", real="unslothai/unsloth#3953")
def _(w: LayerWork) -> Array | None:
    """The shared expert ran on rows that were permuted for the routed ones."""
    right = w.right("contribution")
    return right if right is None else np.roll(right, 1, axis=0)


# Between the router and the experts.


@layer("layer-routed-of-another-token", "M52", "routed", real="NVIDIA/Megatron-LM@9bbb40dd65")
def _(w: LayerWork) -> Array:
    """The routed rows went back to other tokens, and the shared ones did not."""
    return np.roll(w.right("routed"), 1, axis=0)


@layer("layer-scale-lost", "M21", "weights", real="vllm-project/vllm#32437")
def _(w: LayerWork) -> Array:
    """A new path was given no routed scaling factor: the routed experts counted for a third."""
    return w.router.renormalized


@layer("layer-scales-twice", "M22", "routed", real="vllm-project/vllm#45037")
def _(w: LayerWork) -> Array:
    """The router scaled its weights, and the layer scaled the sum of its experts again."""
    return w.stored(w.right("routed") * np.float32(w.config.router.scale))


@layer("layer-weights-not-normed", "M16", "weights", real="axolotl-ai-cloud/axolotl@86487c2e9")
def _(w: LayerWork) -> Array:
    """The experts were given the weights from before the norm."""
    return w.router.gathered * np.float32(w.config.router.scale)


@layer("layer-without-weights", "M63", "weights", real="ml-explore/mlx-lm@e1e66c0d")
def _(w: LayerWork) -> Array:
    """The weights that the router had made were not those that the experts were given."""
    return np.ones_like(w.router.weights)


@layer("layer-slots-of-weights-sorted", "M63", "weights", real="xberg-io/xberg#1211")
def _(w: LayerWork) -> Array:
    """Weights in one order, experts in another: each expert with its neighbour's weight."""
    order = np.argsort(w.ids, axis=1, kind="stable")
    return np.take_along_axis(w.router.weights, order, axis=1)


@layer("layer-ids-shifted", "M63", "ids", real="sgl-project/sglang#6736")
def _(w: LayerWork) -> Array:
    """Slots were counted for one shared expert where there were two: ids moved by one."""
    return (w.router.expert_ids + 1) % w.config.router.num_experts


@layer("layer-biases-lost", "M63", "routed", real="vllm-project/vllm#26289")
def _(w: LayerWork) -> Array:
    """The fused path was given the experts' matrices, and not their biases."""
    lost = ("experts_gate_bias", "experts_up_bias", "experts_down_bias")
    bare = object.__new__(type(w.inputs))
    for name, value in vars(w.inputs).items():
        object.__setattr__(bare, name, None if name in lost else value)
    return LayerWork({}, w.config, bare, w.memory).routed


@layer(
    "layer-unreported-weights-lost", "M63", "weights", "answer", real="ml-explore/mlx-lm@e1e66c0d"
)
def _(w: LayerWork, stage: str) -> Any:
    """The weights were not applied, and no routing was there to compare with."""
    if stage == "answer":
        return LayerResult(output=w.output)
    return np.ones_like(w.router.weights)


@layer("layer-reports-unscaled-weights", "M21", "routing", real="ml-explore/mlx-lm@04a19108")
def _(w: LayerWork) -> Any:
    """The weights that a layer reported were those from before the routed scaling factor."""
    right = w.right("routing")
    return type(right)(weights=w.router.renormalized, expert_ids=right.expert_ids)


# Calls.


@layer("layer-overwrites-hidden", "M61", "answer", real="vllm-project/vllm#28939")
def _(w: LayerWork) -> Any:
    """The output was written into the hidden states, which the residual read afterwards."""
    answer = w.right("answer")
    overwrite(w.inputs.hidden, answer.output.copy())
    return answer


@layer("layer-divides-by-no-token", "M53", "answer", real="lightseekorg/tokenspeed#415")
def _(w: LayerWork) -> Any:
    """A mean load was taken over no tokens."""
    _ = 1 // len(w.inputs.hidden)
    return w.right("answer")

"""Mutants of the shared experts."""

from __future__ import annotations

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.conformance.zoo.router.memory import overwrite
from moe_routing.conformance.zoo.router.shared_stages import contribution, shared_output
from moe_routing.conformance.zoo.router.work import Work


@mutant("shared-gate-skipped", "M57", "shared_gate", real="NousResearch/torchtitan#36")
def _(w: Work) -> None:
    """Qwen2-MoE's shared expert counted double."""
    return


@mutant("shared-gate-without-sigmoid", "M57", "shared_gate", real="InternLM/lmdeploy#3491")
def _(w: Work) -> Array | None:
    """The gate's raw logit was multiplied in."""
    return w.inputs.hidden @ w.inputs.gate.T if w.requested.gated else None


@mutant("shared-gate-twice", "M57", "contribution", real="alibaba/Pai-Megatron-Patch#402")
def _(w: Work) -> Array | None:
    """The gate closed the shared expert twice."""
    right = contribution(w)
    return right if right is None or w.shared_gate is None else right * w.shared_gate


def _dropped(kind: str, real: str, harm: str) -> None:
    def dropped(w: Work) -> Array | None:
        return None if w.requested.kind == kind else contribution(w)

    dropped.__doc__ = harm
    name = {"singular": "shared_expert", "plural": "shared_experts", "mlp": "shared_mlp"}[kind]
    mutant(f"{name.replace('_', '-')}-dropped", "M58", "contribution", real=real)(dropped)


_dropped(
    "singular",
    "vllm-project/vllm#51632",
    "An id appended for the shared expert looked invalid, and was skipped.",
)
_dropped(
    "plural",
    "axolotl-ai-cloud/axolotl@8f3fb517b",
    "Only the attribute shared_expert was looked for: DeepSeek's were skipped in silence.",
)
_dropped(
    "mlp",
    "ROCm/ATOM#1076",
    "Only one name of the module was known, and HunYuan's shared_mlp was lost.",
)


@mutant("absent-shared-expert-runs", "M58", "contribution", real="ROCm/aiter#5595")
def _(w: Work) -> Array | None:
    """A column that was no shared expert was taken for one."""
    return shared_output(w) if w.requested.kind == "none" else contribution(w)


@mutant("shared-expert-twice", "M59", "contribution", real="sgl-project/sglang#36515")
def _(w: Work) -> Array | None:
    """The marker of a fused shared expert was set by two passes."""
    right = contribution(w)
    return right if right is None else right * np.float32(2)


@mutant("plural-shared-experts-twice", "M59", "contribution", real="MooreThreads/torchada#84")
def _(w: Work) -> Array | None:
    """Two shared experts in one MLP were weighted by their number."""
    right = contribution(w)
    return right if right is None or w.requested.kind != "plural" else right * np.float32(2)


@mutant("shared-expert-divided-by-scale", "M59", "contribution", real="sgl-project/sglang#29059")
def _(w: Work) -> Array | None:
    """A weight of 1 / 2.5 was to cancel a factor that was not applied."""
    right = contribution(w)
    return right if right is None else right / np.float32(2.5)


@mutant("shared-expert-reads-routed-output", "M61", "shared_input", real="vllm-project/vllm#28939")
def _(w: Work) -> Array:
    """The routed experts had written over the states that the shared expert read."""
    hidden: Array = w.inputs.hidden
    return np.tanh(hidden)


@mutant("shared-gate-in-place", "M61", "contribution", real="ollama/ollama#14077")
def _(w: Work) -> Array | None:
    """The gate's sigmoid was written over the gate itself, which others read."""
    right = contribution(w)
    if w.requested.gated:
        overwrite(w.inputs.gate, sigmoid(w.inputs.gate))
    return right

"""Mutants of the dispatcher."""

from __future__ import annotations

from dataclasses import replace

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference import RouterConfig


def by(w: Work, sigmoid: bool) -> RouterConfig:
    """Return the configuration with the score function picked."""
    requested: RouterConfig = w.requested
    return replace(requested, score="sigmoid" if sigmoid else "softmax")


@mutant("always-softmax", "M14", "dispatched", real="axolotl-ai-cloud/axolotl@8f3fb517b")
def _(w: Work) -> RouterConfig:
    """Kernels knew one router, and took it for GLM, DeepSeek-V3 and MiniMax as well."""
    return by(w, False)


@mutant("always-sigmoid", "M14", "dispatched", real="vllm-project/vllm#34673")
def _(w: Work) -> RouterConfig:
    """A guess by name sent plain routers to DeepSeek-V3's."""
    return by(w, True)


@mutant("bias-sought-on-the-gate-only", "M04", "dispatched", real="sgl-project/sglang#27916")
def _(w: Work) -> RouterConfig:
    """A bias on the block was not found, and the router taken for a softmax."""
    found = w.inputs.selection_bias is not None and w.inputs.selection_bias_on == "gate"
    return by(w, found)


@mutant("zero-bias-taken-for-none", "M04", "dispatched", real="ggml-org/llama.cpp#18980")
def _(w: Work) -> RouterConfig:
    """A fresh checkpoint, whose bias is still 0, was routed by softmax."""
    bias = w.inputs.selection_bias
    return by(w, bias is not None and bool(bias.any()))

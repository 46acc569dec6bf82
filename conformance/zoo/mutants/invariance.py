"""Mutants of what must not change: the caller's arrays, the thread's floating-point mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_routing.conformance.zoo.residents import mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.memory import overwrite
from moe_routing.conformance.zoo.router.stages import answer, gate_input
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference import Routing


@mutant("hidden-jittered-in-place", "M61", "gate_input", real="huggingface/transformers#33969")
def _(w: Work) -> Array:
    """Noise for the router was multiplied into the states that the experts read next."""
    x = np.array(gate_input(w))
    overwrite(w.inputs.hidden, w.inputs.hidden * np.float32(1.5))
    return x


@mutant("bias-normalised-in-place", "M61", "selection_bias", real="NVIDIA/Megatron-LM#7481")
def _(w: Work) -> Array | None:
    """A buffer that others read later was written by its first reader."""
    bias = w.inputs.selection_bias
    if bias is None:
        return None
    before = np.array(bias)
    overwrite(bias, bias + np.float32(1))
    return before


@mutant("hidden-overwritten-by-experts", "M61", "answer", real="vllm-project/vllm#28939")
def _(w: Work) -> object:
    """Experts wrote their output over their input; the shared expert read that."""
    right = answer(w)
    overwrite(w.inputs.hidden, np.zeros_like(w.inputs.hidden))
    return right


@mutant("workspace-handed-out", "M34", "answer", real="ROCm/aiter@be1ab22ae7")
def _(w: Work) -> Routing:
    """A workspace was given back while its contents were in use: the next call wrote over them."""
    right = answer(w)
    workspace = w.memory.setdefault(right.weights.shape, np.array(right.weights))
    workspace[...] = right.weights
    return replace(right, weights=workspace)


@mutant("float-mode-left-changed", "M61", "parting", real="gevent/gevent#1820")
def _(w: Work) -> None:
    """A library set the floating-point mode of the process that loaded it, for good."""
    np.seterr(under="raise")

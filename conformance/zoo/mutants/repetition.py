"""Mutants of repetition: what one call leaves behind for another."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from moe_routing.conformance.zoo.residents import WHOLE, mutant
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.stages import RIGHT, answer
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference import Routing

_THREADED = replace(WHOLE, threads=True)


def _next(w: Work, name: str) -> int:
    """Return how many calls of this name came before."""
    count: int = w.memory.get(name, 0)
    w.memory[name] = count + 1
    return count


def _in_ring(w: Work, size: int) -> Routing:
    """Return the answer in one of ``size`` buffers, the oldest."""
    right = answer(w)
    shape = right.weights.shape
    place = (shape, _next(w, f"calls of {shape}") % size)
    buffer = w.memory.setdefault(place, np.array(right.weights))
    buffer[...] = right.weights
    return replace(right, weights=buffer)


@mutant("ring-of-three-answers", "M34", "answer", real="ROCm/aiter@be1ab22ae7")
def _(w: Work) -> Routing:
    """A third call wrote over weights that the backward pass had still to read."""
    return _in_ring(w, 3)


@mutant("ring-of-eight-answers", "M34", "answer", real="ROCm/aiter@be1ab22ae7")
def _(w: Work) -> Routing:
    """With eight layers in flight, the ninth wrote over the weights of the first."""
    return _in_ring(w, 8)


@mutant("ring-of-sixteen-answers", "M34", "answer", real="ROCm/aiter@be1ab22ae7")
def _(w: Work) -> Routing:
    """An allocator gave the memory of an answer out again sixteen calls later."""
    return _in_ring(w, 16)


def _once_for_each(w: Work, name: str) -> Array:
    """Return an array as it was when its memory was first seen."""
    array = getattr(w.inputs, name)
    known = w.memory.setdefault((name, id(array)), (array, np.array(array)))
    packed: Array = known[1]
    return packed


@mutant("gate-packed-once", "M05", "gate_weight", real="sgl-project/sglang#10440")
def _(w: Work) -> Array:
    """A gate was packed when first seen; what was loaded or learned later stayed unread."""
    return _once_for_each(w, "gate_weight")


@mutant("bias-packed-once", "M05", "selection_bias", real="sgl-project/sglang#10440")
def _(w: Work) -> Array | None:
    """A bias was copied at the first call; balance updates no longer reached the router."""
    return None if w.inputs.selection_bias is None else _once_for_each(w, "selection_bias")


@mutant(
    "scratch-shared-by-threads",
    "M34",
    "scaled",
    real="ROCm/aiter@be1ab22ae7",
    claims=_THREADED,
    needs="two threads",
)
def _(w: Work) -> Array:
    """Two requests at a time shared one scratch buffer, and each read the other's weights."""
    right = RIGHT["scaled"](w)
    scratch = w.memory.setdefault(right.shape, np.array(right))
    scratch[...] = right
    time.sleep(0)  # a kernel runs here, and another thread may
    return np.array(scratch)


@mutant("one-call-in-fifty", "M34", "scaled", real="flagos-ai/FlagGems#5123")
def _(w: Work) -> Array:
    """A missing barrier: the same call, repeated, gave weights of 3e9 now and then."""
    right: Array = RIGHT["scaled"](w)
    shape = (w.config.num_experts, right.shape, float(right.sum()))
    return right * 2 if _next(w, f"calls of {shape}") % 50 == 49 else right

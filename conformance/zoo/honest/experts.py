"""Honest variants of experts: orders of sums, stores, places of the weight, fused, unsorted."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.runner import (
    ACTIVATE,
    RunnerWork,
    StagedRunner,
    activated,
    erf,
    product,
)
from moe_routing.implementations import Capabilities, Computes
from moe_routing.reference import experts
from moe_routing.reference.formats import INPUT_FORMATS

runner = partial(honest, makes=StagedRunner)


def _claims(**axes: Any) -> Capabilities:
    return Capabilities(computes=Computes(**axes))


@runner("run-plainly", "answer")
def _(w: RunnerWork) -> Array:
    """Sorted by expert, every result stored: the usual form."""
    return w.output


@runner("run-in-float64", "answer")
def _(w: RunnerWork) -> Array:
    """More precision than is due, in every step, and no store."""
    return experts(w.config, w.inputs)


@runner("run-in-float64-and-stored-once", "answer")
def _(w: RunnerWork) -> Array:
    """One store at the very end."""
    return w.stored(experts(w.config, w.inputs))


@runner("run-fused-in-float32", "gate", "up", "inner", "answers", "weighted")
def _(w: RunnerWork, stage: str) -> Array:
    """A fused kernel stores the output alone."""
    if stage in ("gate", "up"):
        return _unstored(w, w.x, stage)
    if stage == "inner":
        return _Unstored(w).inner
    if stage == "answers":
        return _unstored(w, w.inner, "down")
    return w.answers if w.config.weight_on == "input" else w.answers * w.scale


def _unstored(w: RunnerWork, x: Array, name: str) -> Array:
    bias = w.matrices.get(f"{name}_bias")
    out = product(w, x, name)
    return out if bias is None else out + bias[w.owners]


class _Unstored:
    """The same work, where nothing is stored."""

    def __init__(self, w: RunnerWork) -> None:
        self.config, self.gate, self.up = w.config, w.gate if w.config.gated else None, w.up

    def stored(self, values: Array) -> Array:
        return values.astype(np.float32)

    @property
    def inner(self) -> Array:
        return activated(self)  # type: ignore[arg-type]


@runner("run-slot-by-slot-and-stored", "output")
def _(w: RunnerWork) -> Array:
    """Slots may be added to an output in the dtype of the call, one after the other."""
    return _running(w, np.arange(len(w.tokens)))


@runner("run-backwards-and-stored", "output")
def _(w: RunnerWork) -> Array:
    """The order in which slots are added is free."""
    return _running(w, np.arange(len(w.tokens))[::-1])


@runner("run-by-atomic-additions", "output")
def _(w: RunnerWork) -> Array:
    """Atomic additions come in another order at each call."""
    calls = w.memory["calls"] = w.memory.get("calls", 0) + 1
    return _running(w, np.random.default_rng(calls).permutation(len(w.tokens)))


def _running(w: RunnerWork, order: Array) -> Array:
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    for row in order:
        token = w.tokens[row]
        total[token] = w.stored(total[token] + w.weighted[row])
    return total


@runner("run-with-weights-before-the-last-product", "inner", "answers", "weighted")
def _(w: RunnerWork, stage: str) -> Array:
    """The last product is linear: a weight may be applied before it, if its bias is weighted."""
    late = w.config.weight_on == "output"
    if stage == "inner":
        return w.stored(w.right("inner") * w.scale) if late else w.right("inner")
    if stage == "weighted":
        return w.answers
    bias = w.matrices.get("down_bias")
    out = w.stored(product(w, w.inner, "down"))
    if bias is None:
        return out
    own = bias[w.owners]
    return w.stored(out + (w.stored(own * w.scale) if late else own))


@runner("run-in-blocks-of-the-inner-sum", "gate", "up", "answers")
def _(w: RunnerWork, stage: str) -> Array:
    """A sum may be made of blocks, and begin with the bias."""
    name, x = ("down", w.inner) if stage == "answers" else (stage, w.x)
    bias, matrix = w.matrices.get(f"{name}_bias"), w.matrices[f"{name}_weight"]
    out = np.zeros((len(x), matrix.shape[1]), np.float32)
    if bias is not None:
        out += bias[w.owners]
    for start in range(0, x.shape[1], 3):
        part = slice(start, start + 3)
        out += np.einsum("nh,nfh->nf", x[:, part], matrix[w.owners][:, :, part])
    return w.stored(out)


@runner("run-backwards-through-columns", "gate", "up", "answers")
def _(w: RunnerWork, stage: str) -> Array:
    """The order of a sum is free, and so is a store of the product before its bias."""
    name, x = ("down", w.inner) if stage == "answers" else (stage, w.x)
    bias, matrix = w.matrices.get(f"{name}_bias"), w.matrices[f"{name}_weight"][w.owners]
    out = np.zeros((len(x), matrix.shape[1]), np.float32)
    for column in range(x.shape[1])[::-1]:
        out = out + x[:, column, None] * matrix[:, :, column]
    out = w.stored(out)
    return out if bias is None else w.stored(out + bias[w.owners])


@runner("run-every-expert-and-picked", "routes")
def _(w: RunnerWork) -> Array:
    """Routes need not be sorted."""
    return np.flatnonzero((w.ids.reshape(-1) >= 0) & ~_idle(w))[::-1]


def _idle(w: RunnerWork) -> Array:
    idle: Array = w.weights.reshape(-1) == 0
    return idle & (w.config.weight_on == "output")


@runner("run-with-a-sigmoid-by-exp2", "inner")
def _(w: RunnerWork) -> Array:
    """Powers of two, a reciprocal and a product make a sigmoid as well."""
    log2e = np.float32(1.4426950408889634)

    def silu(x: Array) -> Array:
        return np.asarray(x * (np.float32(1) / (1 + np.exp2(-x * log2e))))

    return activated(w, {**ACTIVATE, "silu": silu})


@runner("run-with-stored-activations", "inner")
def _(w: RunnerWork) -> Array:
    """Eager code stores a sigmoid, an erf or a tanh before it multiplies with it."""
    half = np.float32(0.5)

    def silu(x: Array) -> Array:
        return x * w.stored(1 / (1 + np.exp(-x)))

    def gelu(x: Array) -> Array:
        scaled = w.stored(x * np.float32(0.5**0.5))
        return w.stored(x * half) * w.stored(1 + w.stored(erf(scaled)))

    def gelu_tanh(x: Array) -> Array:
        cube = w.stored(np.float32(0.044715) * w.stored(x * x * x))
        y = w.stored(np.float32(0.7978845608) * w.stored(x + cube))
        return w.stored(x * half) * w.stored(1 + w.stored(np.tanh(y)))

    return activated(w, {**ACTIVATE, "silu": silu, "gelu": gelu, "gelu-tanh": gelu_tanh})


@runner("run-gelu-as-a-sigmoid", "inner")
def _(w: RunnerWork) -> Array:
    """The tanh form of GELU is a sigmoid of twice the argument."""

    def gelu_tanh(x: Array) -> Array:
        y = np.float32(0.7978845608) * (x + np.float32(0.044715) * x * x * x)
        return np.asarray(x / (1 + np.exp(-2 * y)))

    return activated(w, {**ACTIVATE, "gelu-tanh": gelu_tanh})


@runner("run-with-tf32-products", "x", "inner", "matrices", claims=_claims(products="tf32"))
def _(w: RunnerWork, stage: str) -> Any:
    """Products of operands with 11 bits are right where they are declared."""
    right = w.right(stage)
    if w.inputs.dtype != "float32":
        return right
    if stage != "matrices":
        return _cut(right)
    return {n: _cut(each) if n.endswith("_weight") else each for n, each in right.items()}


def _cut(values: Array) -> Array:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFFE000)
    return bits.view(np.float32)


@runner("run-with-silu-alone", "answer", claims=_claims(activations=("silu",), gated=(True,)))
def _(w: RunnerWork) -> Array:
    """A kernel may know one activation alone."""
    return w.output


@runner(
    "run-with-the-limit-and-alpha-of-gpt-oss",
    "answer",
    claims=_claims(limits=(7.0,), alphas=(1.702,)),
)
def _(w: RunnerWork) -> Array:
    """A kernel may have a limit and an alpha of its own, where it says so."""
    return w.output


@runner("run-without-biases", "answer", claims=_claims(biases=(False,), weight_on=("output",)))
def _(w: RunnerWork) -> Array:
    """A kernel may take no biases."""
    return w.output


@runner(
    "run-in-multiples-of-8",
    "answer",
    claims=_claims(hidden_multiple_of=8, width_multiple_of=8, max_experts=8, max_tokens=64),
)
def _(w: RunnerWork) -> Array:
    """A kernel may want its sizes aligned."""
    return w.output


@runner(
    "run-distinct-and-present-routes",
    "answer",
    claims=_claims(absent=(False,), repeats=(False,), max_top_k=4),
)
def _(w: RunnerWork) -> Array:
    """A library may take nothing but K distinct experts a token."""
    return w.output


@runner("run-multiplying-by-0", "routes", claims=_claims(weight_on=("input",)))
def _(w: RunnerWork) -> Array:
    """On the input a weight of 0 is a weight as any other."""
    ids = w.ids.reshape(-1)
    order = np.argsort(ids, kind="stable")
    return order[np.count_nonzero(ids < 0) :]


@runner("run-in-the-native-format", "answer")
def _(w: RunnerWork) -> Array:
    """A float16 answer may be float16."""
    name = w.inputs.dtype
    return w.output.astype(np.float16) if name == INPUT_FORMATS["float16"].name else w.output


@runner("run-with-products-after-each-other", "up")
def _(w: RunnerWork) -> Array:
    """Gate and up may be two products, one of them in float64."""
    matrix = w.matrices["up_weight"].astype(np.float64)
    bias = w.matrices.get("up_bias")
    out = np.einsum("nh,nfh->nf", w.x.astype(np.float64), matrix[w.owners])
    return w.stored(out) if bias is None else w.stored(out + bias[w.owners])

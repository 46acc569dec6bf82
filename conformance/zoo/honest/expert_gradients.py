"""Honest variants of experts' gradients: orders of sums, stores, places of the weight, fused."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.learner import (
    SLOPES,
    LearnerWork,
    StagedLearner,
    answer,
    at_gate,
    at_up,
    of_matrix,
)
from moe_routing.conformance.zoo.router.runner import product
from moe_routing.implementations import Capabilities, Computes
from moe_routing.reference import ExpertGradients, expert_gradients

learner = partial(honest, makes=StagedLearner)

_BIASES = ("of_gate_bias", "of_up_bias", "of_down_bias")


@learner("learn-plainly", "answer")
def _(w: LearnerWork) -> ExpertGradients:
    """Sorted by expert, every result stored: the usual form."""
    return answer(w)


@learner("learn-in-float64", "answer")
def _(w: LearnerWork) -> ExpertGradients:
    """More precision than is due, in every step, and no store."""
    return expert_gradients(w.config, w.inputs, w.cotangent)


@learner("learn-in-float64-and-stored-once", "answer")
def _(w: LearnerWork) -> ExpertGradients:
    """One store at the very end."""
    found = expert_gradients(w.config, w.inputs, w.cotangent).arrays()
    return ExpertGradients(**{name: w.stored(each) for name, each in found.items()})


@learner("learn-slot-by-slot-and-stored", "of_hidden")
def _(w: LearnerWork) -> Array:
    """Rows may be added to a token's gradient in the dtype of the call, in any order."""
    rows = w.at_x if w.late else w.stored(w.at_x * w.forward.scale)
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    for row in np.arange(len(rows))[::-1]:
        token = w.forward.tokens[row]
        total[token] = w.stored(total[token] + rows[row])
    return total


@learner("learn-by-atomic-additions", "of_hidden")
def _(w: LearnerWork) -> Array:
    """Atomic additions come in another order at each call."""
    calls = w.memory["calls"] = w.memory.get("calls", 0) + 1
    rows = w.at_x if w.late else w.stored(w.at_x * w.forward.scale)
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    order = np.random.default_rng(calls).permutation(len(rows))
    np.add.at(total, w.forward.tokens[order], rows[order])
    return w.stored(total)


@learner("learn-with-the-weight-after-the-last-product", "at_inner", "of_down_weight", "of_weights")
def _(w: LearnerWork, stage: str) -> Array:
    """The last product is linear: a weight may come in after it, as where it scales its input."""
    if not w.late:
        return w.right(stage)  # type: ignore[no-any-return]
    inner = w.forward.inner
    if stage == "of_down_weight":
        return of_matrix(w, w.at_rows, w.stored(inner * w.forward.scale))
    bare = w.stored(_back(w))
    if stage == "at_inner":
        return w.stored(bare * w.forward.scale)
    each = (bare * inner).sum(axis=1, dtype=np.float32)
    if (bias := w.forward.matrices.get("down_bias")) is not None:
        each = w.stored(each) + w.stored((w.at_rows * bias[w.forward.owners]).sum(axis=1))
    flat = np.zeros(w.inputs.weights.size, np.float32)
    flat[w.forward.routes] = each
    return w.stored(flat.reshape(w.inputs.weights.shape))


def _back(w: LearnerWork) -> Array:
    """Return the cotangent of each row times the last matrix of its owner."""
    matrix = w.forward.matrices["down_weight"][w.forward.owners]
    out: Array = np.einsum("nh,nhf->nf", w.at_rows, matrix)
    return out


@learner("learn-gate-and-up-in-one-product", "at_x")
def _(w: LearnerWork) -> Array:
    """Gate and up lie in one array: their gradients are summed in one product."""
    names = ("gate", "up") if w.config.gated else ("up",)
    both = {"gate": w.at_gate, "up": w.at_up} if w.config.gated else {"up": w.at_up}
    at = np.concatenate([both[name] for name in names], axis=1)
    joined = [w.forward.matrices[f"{name}_weight"][w.forward.owners] for name in names]
    return w.stored(np.einsum("nf,nfh->nh", at, np.concatenate(joined, axis=1)))


@learner("learn-with-recomputed-products", "of_weights")
def _(w: LearnerWork) -> Array:
    """Checkpointing computes the forward pass again, perhaps without its stores."""
    if not w.late:
        return w.right("of_weights")  # type: ignore[no-any-return]
    bias = w.forward.matrices.get("down_bias")
    again = product(w.forward, w.forward.inner, "down")
    again = again if bias is None else again + bias[w.forward.owners]
    flat = np.zeros(w.inputs.weights.size, np.float32)
    flat[w.forward.routes] = (w.at_rows * again).sum(axis=1, dtype=np.float32)
    return w.stored(flat.reshape(w.inputs.weights.shape))


@learner("learn-biases-by-a-scatter", *_BIASES)
def _(w: LearnerWork, stage: str) -> Array | None:
    """A bias that is gathered by row gets its gradient by additions in its own dtype."""
    name = stage.removeprefix("of_").removesuffix("_bias")
    right: Array | None = w.right(stage)
    if right is None:
        return None
    at = {"gate": "at_gate", "up": "at_up", "down": "at_answers"}[name]
    out = np.zeros_like(right)
    for row, expert in enumerate(w.forward.owners):
        out[expert] = w.stored(out[expert] + getattr(w, at)[row])
    return out


@learner("learn-with-kinks-from-the-other-side", "at_gate", "at_up")
def _(w: LearnerWork, stage: str) -> Array:
    """At 0 ReLU may have the slope 1 as well as 0."""
    slopes = {**SLOPES, "relu": lambda x: np.asarray(x >= 0, np.float32)}
    return (at_gate if stage == "at_gate" else at_up)(w, slopes)


@learner("learn-none-for-zeros", "answer")
def _(w: LearnerWork) -> ExpertGradients:
    """A gradient that is 0 throughout may be None."""
    found = answer(w).arrays()
    return ExpertGradients(**{name: each for name, each in found.items() if each.any()})


@learner(
    "learn-some-of-it",
    "answer",
    claims=Capabilities(computes=Computes(gradients=("hidden", "weights"))),
)
def _(w: LearnerWork) -> ExpertGradients:
    """Where experts are frozen, hidden states and routing weights alone have gradients."""
    return ExpertGradients(hidden=w.of_hidden, weights=w.of_weights)


@learner("learn-of-every-route", "of_weights")
def _(w: LearnerWork) -> Array:
    """A weight of 0 has the gradient of any other, where its expert runs."""
    right: Array = w.right("of_weights")
    if not w.late:
        return right
    due: Any = expert_gradients(w.config, w.inputs, w.cotangent).weights
    zero = (w.inputs.weights == 0) & (w.inputs.expert_ids >= 0)
    return np.where(zero, w.stored(np.asarray(due)), right)

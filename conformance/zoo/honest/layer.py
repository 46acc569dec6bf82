"""Honest variants of whole layers: orders of sums, places of the factor, what is answered."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.residents import honest
from moe_routing.conformance.zoo.router.composer import LayerWork, StagedComposer, runner
from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.implementations import Capabilities, Composes
from moe_routing.reference import LayerResult, experts, shared_contribution

layer = partial(honest, makes=StagedComposer)


@layer("layer-plainly", "answer")
def _(w: LayerWork) -> Any:
    """Router, experts, shared expert, sum: every result stored."""
    return w.right("answer")


@layer("layer-without-a-routing", "answer")
def _(w: LayerWork) -> Any:
    """A layer need not say how it routed."""
    return LayerResult(output=w.output)


@layer("layer-scaled-at-the-end", "routed")
def _(w: LayerWork) -> Array:
    """A factor of all weights may be applied to their sum, if the experts' outputs are weighted."""
    scale = np.float32(w.config.router.scale)
    scaled = w.inputs.per_expert_scale is None and w.config.experts.weight_on == "output"
    if not scaled:
        return w.right("routed")  # type: ignore[no-any-return]
    return w.stored(runner(w, w.router.renormalized).output * scale)


@layer("layer-slots-added-to-the-shared", "output")
def _(w: LayerWork) -> Array:
    """The shared expert may come first, and each slot be added to it and stored."""
    total = w.routed * 0 if w.contribution is None else w.contribution.copy()
    work = runner(w, w.weights)
    for row, token in enumerate(work.tokens):
        total[token] = w.stored(total[token] + work.weighted[row])
    return total


@layer("layer-shared-as-a-slot", "output")
def _(w: LayerWork) -> Array:
    """The shared expert may be one more summand of a sum in float32, stored once."""
    work = runner(w, w.weights)
    total = np.zeros(w.inputs.hidden.shape, np.float32)
    np.add.at(total, work.tokens, work.weighted)
    return w.stored(total if w.contribution is None else total + w.contribution)


@layer("layer-in-float64", "output")
def _(w: LayerWork) -> Array:
    """More precision than is due, in the experts and the shared expert."""
    weights = np.asarray(w.router.weights, np.float32)
    given = w.inputs.experts_at(np.asarray(w.ids, np.int64), weights)
    total = experts(w.config.experts, given)
    shared = w.inputs.shared
    return total if shared is None else total + shared_contribution(w.config.shared, shared)


@layer(
    "layer-without-shared-experts",
    "answer",
    claims=Capabilities(composes=Composes(shared=("none",))),
)
def _(w: LayerWork) -> Any:
    """Most models have no shared expert."""
    return w.right("answer")


@layer(
    "layer-with-a-gated-shared-expert",
    "answer",
    claims=Capabilities(composes=Composes(shared=("singular",), gated=(True,))),
)
def _(w: LayerWork) -> Any:
    """Qwen's shared expert always has a gate."""
    return w.right("answer")

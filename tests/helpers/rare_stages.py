"""Stages that are wrong under a rare condition alone: a size, an absent route, a large logit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.mutants.wide_gates import cast
from moe_routing.conformance.zoo.router import differentiator as gradients
from moe_routing.conformance.zoo.router import learner, replayer, runner, stages
from moe_routing.conformance.zoo.router.functions import Array, softmax
from moe_routing.implementations import Capabilities, Promises
from moe_routing.reference.selection import top_k

ZERO = np.float32(0)


def past(number: int, right: Callable[[Any], Array], axis: int = 0) -> Callable[[Any], Array]:
    """A stage that leaves 0 from ``number`` on."""

    def wrong(w: Any) -> Array:
        found = np.array(right(w))
        found[(slice(None),) * axis + (slice(number, None),)] = ZERO
        return found

    return wrong


def wide_if(test: Callable[[Any], bool]) -> Callable[[Any], Array]:
    """A float32 gate that is rounded to 16 bits where ``test`` holds."""

    def wrong(w: Any) -> Array:
        gate: Array = w.inputs.gate_weight
        return cast(w.inputs, gate) if test(w) else gate

    return wrong


def of_expert(number: int) -> Callable[[Any], Array]:
    """Rows of experts from ``number`` on are never written."""
    return lambda w: np.where((w.owners >= number)[:, None], ZERO, runner.weighed(w))


def rows_past(number: int) -> Callable[[Any], Array]:
    """A gradient of what an expert's first ``number`` routes say."""

    def wrong(w: Any) -> Array:
        owners = w.forward.owners
        late = np.arange(len(owners)) - np.searchsorted(owners, owners) >= number
        at = np.where(late[:, None], ZERO, w.at_up)
        return learner.of_matrix(w, at, w.forward.x)

    return wrong


def absent_in_softmax(w: Any) -> Array:
    """The logit of expert 0 stood in the softmax for each absent route."""
    if w.config.weights_from != "softmax_of_selected":
        return replayer.gathered(w)
    shares = softmax(np.take_along_axis(w.forward.operated, w.at, axis=1))
    return np.where(w.present, shares, ZERO)


def scaled_by_the_last(w: Any) -> Array:
    """Beside an absent route, every route had the scale of the token's last expert."""
    scales, whole = w.forward.per_expert_scale, w.present.all(axis=1, keepdims=True)
    if scales is None:
        return replayer.weights(w)
    last = np.maximum(w.ids.max(axis=1, keepdims=True), 0)
    return np.where(w.present, w.scaled * scales[np.where(whole, w.at, last)], ZERO)


def by_division(w: Any) -> Array | None:
    """The weights before the scale were those after it, divided by it: 0 / 0 for a scale of 0."""
    right = gradients.of_per_expert_scale(w)
    return right if right is None or w.config.scale else np.full_like(right, np.nan)


def bare_z(w: Any) -> Array:
    """The exponentials were summed without the maximum taken off."""
    return np.asarray(np.log(np.exp(w.inputs.logits).sum(axis=-1)) ** 2)


def only(*, rows: int = 9999, experts: int = 9999, ranks: int = 9999) -> Callable[[Any], Array]:
    """A sharder that runs no token, no local expert or no rank from a number on."""

    def wrong(w: Any) -> Array:
        ids = np.array(w.right("ids"))
        ids[(ids >= experts) | (np.arange(len(ids)) >= rows)[:, None]] = -1
        return ids if w.rank < ranks else np.full_like(ids, -1)

    return wrong


def twice_on_the_first(w: Any) -> Array:
    """A third place of an expert took its turn, and the first one took it too."""
    turn: Array = w.right("turn").copy()
    for expert in range(w.config.num_experts):
        homes = w.placement.rank_of[w.placement.logical_of == expert]
        if len(homes) > 2 and homes[0] == w.rank:
            turn |= w.inputs.expert_ids == expert
    return turn


def less_an_early_maximum(w: Any) -> Array:
    """The maximum that a softmax takes off was that of the first 64 experts."""
    z = w.operated
    if w.config.score != "softmax":
        return stages.RIGHT["scores"](w)
    exponentials = np.exp(z - z[:, :64].max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def promising(**promises: Any) -> Capabilities:
    """The whole specification, and these promises."""
    return Capabilities(promises=Promises(**promises))


def in_turn(lanes: int) -> Callable[[Any], Array]:
    """Ties go to the lowest of so many lanes, each of which holds every so-manieth expert."""

    def wrong(w: Any) -> Array:
        order = np.argsort(np.arange(w.config.num_experts) % lanes, kind="stable")
        return np.asarray(order[top_k(w.competing[:, order], w.config.top_k)])

    return wrong


def in_two_runs(first: int) -> Callable[[Any], Array]:
    """Each of two passes is in order, the second one comes first."""

    def wrong(w: Any) -> Array:
        return np.roll(stages.expert_ids(w), -first if w.config.top_k > first else 0, axis=1)

    return wrong


def one_bit_off(test: Callable[[Any], bool]) -> Callable[[Any], Array]:
    """Weights whose last bit differs where ``test`` holds."""

    def wrong(w: Any) -> Array:
        right = stages.weights(w)
        return np.nextafter(right, ZERO) if test(w) else right

    return wrong


def by_eager(test: Callable[[Any], bool]) -> Callable[[Any], Any]:
    """An answer of a fallback where ``test`` holds."""
    return lambda w: replace(stages.answer(w), kernel="eager" if test(w) else "fused")


def in_half(array: Array | None) -> Array | None:
    """An array that was stored in float16."""
    return None if array is None else array.astype(np.float16).astype(np.float32)


def if_it_sums(w: Any) -> Array:
    """A bias is taken for none where its sum is 0."""
    return stages.biased(w) if w.selection_bias is None or w.selection_bias.sum() else w.scores


def running_softmax(block: int) -> Callable[[Any], Array]:
    """The maximum so far is -inf after a lost block, and -inf less -inf is NaN."""

    def wrong(w: Any) -> Array:
        z = w.operated
        if w.config.score != "softmax" or w.config.num_experts <= block:
            return np.asarray(stages.RIGHT["scores"](w))
        most, total = np.full((len(z), 1), -np.inf, np.float32), ZERO
        for start in range(0, z.shape[1], block):
            part = z[:, start : start + block]
            above = np.maximum(most, part.max(axis=1, keepdims=True))
            total = total * np.exp(most - above) + np.exp(part - above).sum(axis=1, keepdims=True)
            most = above
        return np.asarray(np.exp(z - most) / total)

    return wrong

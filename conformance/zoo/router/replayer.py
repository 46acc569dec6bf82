"""The zoo's replayer: a router that runs recorded experts, made of stages that can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array, sigmoid, softmax
from moe_routing.conformance.zoo.router.staged import StagedAdapter
from moe_routing.conformance.zoo.router.stages import RIGHT
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference import Recorded, RouterConfig, RouterInputs, Routing
from moe_routing.reference.replay import NO_ROW
from moe_routing.reference.routes import ABSENT


class ReplayWork:
    """One replay in progress: a stage's value is computed when it is first read.

    ``forward`` is the right router's work on the call, ``recorded`` its record, ``memory`` what is
    stored between calls, and ``own`` the stages that the replayer has in place of the right ones.
    ``layer`` is the one that is read, ``rows [T]`` the row of each token. Of these routes, all
    ``[T, K]``: ``ids`` (-1 where absent), ``present``, ``held`` (the recorded weights, or None),
    ``at`` (where weights are gathered), ``gathered``, ``norm [T, 1]``, ``renormalized``,
    ``scaled``, ``weights``; ``answer_ids`` and ``answer_weights`` are what is answered.
    """

    layer: int | None
    rows: Array
    ids: Array
    present: Array
    held: Array | None
    at: Array
    gathered: Array
    norm: Array
    renormalized: Array
    scaled: Array
    weights: Array
    answer_ids: Array
    answer_weights: Array
    free: Any
    answer: Any

    def __init__(
        self,
        own: Mapping[str, ReplayStage],
        forward: Work,
        recorded: Recorded,
        memory: dict[Any, Any],
    ) -> None:
        self._own, self.forward, self.recorded, self.memory = own, forward, recorded, memory

    def __getattr__(self, stage: str) -> Any:
        if stage not in REPLAYING:
            raise AttributeError(f"a replayer has no stage {stage!r}")
        value = (self._own.get(stage) or REPLAYING[stage])(self)
        vars(self)[stage] = value
        return value

    @property
    def config(self) -> RouterConfig:
        """The configuration, checked and claimed."""
        return self.forward.config


ReplayStage = Callable[[ReplayWork], Any]


class StagedReplayer(StagedAdapter):
    """An adapter that replays; its answer is the last of its stages."""

    methods = ("replay",)

    def replay(self, config: RouterConfig, inputs: RouterInputs, recorded: Recorded) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``, ``ValueError``."""
        self._capabilities.replays.require(config, recorded)
        forward = Work({}, RIGHT, config, inputs, self._capabilities, {})
        with np.errstate(all="ignore"):
            return ReplayWork(self._stages, forward, recorded, self.memory).answer


def of_tokens(w: ReplayWork, array: Array, nothing: Any) -> Array:
    """Return what the record has for each token of the batch, in the layer that is read."""
    found = array[:, w.layer]
    if not len(found):
        return np.full((len(w.rows), array.shape[2]), nothing)
    return np.where((w.rows == NO_ROW)[:, None], nothing, found[np.maximum(w.rows, 0)])


def held(w: ReplayWork) -> Array | None:
    """Return the recorded weights, 0 where absent."""
    weights = w.recorded.weights
    if weights is None:
        return None
    return np.where(w.present, of_tokens(w, weights, np.float32(0)), np.float32(0))


def gather(w: ReplayWork, values: Array) -> Array:
    """Gather ``values [T, E]`` at each route; 0 where absent."""
    return np.where(w.present, np.take_along_axis(values, w.at, axis=1), np.float32(0))


def gathered(w: ReplayWork) -> Array:
    """Gather weights from the values that the configuration names; no mask is read."""
    match w.config.weights_from:
        case "softmax_of_selected":
            logits = np.take_along_axis(w.forward.operated, w.at, axis=1)
            shares = softmax(np.where(w.present, logits, np.float32(-np.inf)))
            return np.where(w.present, shares, np.float32(0))
        case "sigmoid_of_selected":
            return gather(w, sigmoid(w.forward.operated))
        case _:
            return gather(w, w.forward.scores)


def norm(w: ReplayWork) -> Array:
    """Return the divisor of renormalisation, of the present routes."""
    return norm_of(w, w.gathered)


def norm_of(w: ReplayWork, values: Array) -> Array:
    """Return the divisor of ``values [T, K]``."""
    rule = w.forward.rule
    order = np.float32(rule.order)
    powers: Array = np.abs(values) if order == 1 else np.abs(values) ** order
    total: Array = powers.sum(axis=1, keepdims=True)
    root: Array = total if order == 1 else total ** (1 / order)
    return np.asarray(np.maximum(root + np.float32(rule.eps), np.float32(rule.floor)))


def scaled(w: ReplayWork) -> Array:
    """Multiply by the routed scaling factor."""
    return w.renormalized * np.float32(w.config.scale)


def weights(w: ReplayWork) -> Array:
    """Multiply by each expert's own scale; an absent route weighs 0."""
    scales = w.forward.per_expert_scale
    own = w.scaled if scales is None else w.scaled * scales[w.at]
    return np.where(w.present, own, np.float32(0))


def answer(w: ReplayWork) -> Any:
    """Answer in the layout ``[T, K]``; a layer without a record is routed."""
    if w.layer is None:
        return w.free
    return Routing(weights=w.answer_weights, expert_ids=w.answer_ids)


REPLAYING: dict[str, ReplayStage] = {
    "layer": lambda w: w.recorded.layer,
    "rows": lambda w: (
        np.arange(w.recorded.num_tokens) if w.recorded.rows is None else w.recorded.rows
    ),
    "ids": lambda w: of_tokens(w, w.recorded.expert_ids, ABSENT),
    "present": lambda w: w.ids != ABSENT,
    "held": held,
    "at": lambda w: np.maximum(w.ids, 0),
    "gathered": gathered,
    "norm": norm,
    "renormalized": lambda w: w.gathered / w.norm if w.config.renormalize else w.gathered,
    "scaled": scaled,
    "weights": weights,
    "answer_ids": lambda w: w.ids,
    "answer_weights": lambda w: w.weights if w.held is None else w.held,
    "free": lambda w: w.forward.answer,
    "answer": answer,
}
"""The right stages of a replay, by name."""

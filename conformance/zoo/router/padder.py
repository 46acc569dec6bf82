"""The zoo's padder: a router that leaves padding out, made of stages that can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array
from moe_routing.conformance.zoo.router.staged import StagedAdapter
from moe_routing.conformance.zoo.router.stages import RIGHT
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.reference import RouterConfig, RouterInputs, Routing
from moe_routing.reference.padding import Padding, sentinel_of


class PaddedWork:
    """One padded batch in progress: a stage's value is computed when it is first read.

    ``forward`` is the right router's work on the whole batch, ``padding`` the call's, ``memory``
    what is stored between calls, and ``own`` the stages in place of the right ones: ``valid [T]``,
    ``nobody`` (the sentinel), ``routed_ids`` and ``routed_weights [T, K]`` before padding is left
    out, ``ids`` and ``weights [T, K]`` after it, ``answer``.
    """

    valid: Array
    nobody: int
    routed_ids: Array
    routed_weights: Array
    ids: Array
    weights: Array
    answer: Any

    def __init__(
        self,
        own: Mapping[str, PaddedStage],
        forward: Work,
        padding: Padding,
        memory: dict[Any, Any],
    ) -> None:
        self._own, self.forward, self.padding, self.memory = own, forward, padding, memory

    def __getattr__(self, stage: str) -> Any:
        if stage not in PADDING:
            raise AttributeError(f"a padder has no stage {stage!r}")
        value = (self._own.get(stage) or PADDING[stage])(self)
        vars(self)[stage] = value
        return value

    @property
    def config(self) -> RouterConfig:
        """The configuration, checked and claimed."""
        return self.forward.config


PaddedStage = Callable[[PaddedWork], Any]


class StagedPadder(StagedAdapter):
    """An adapter that routes padded batches; its answer is the last of its stages."""

    methods = ("route_padded",)

    def route_padded(self, config: RouterConfig, inputs: RouterInputs, padding: Padding) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``, ``ValueError``."""
        self._capabilities.pads.require(padding)
        forward = Work({}, RIGHT, config, inputs, self._capabilities, {})
        with np.errstate(all="ignore"):
            return PaddedWork(self._stages, forward, padding, self.memory).answer


def masked(w: PaddedWork, values: Array, nothing: Any) -> Array:
    """Return ``values [T, K]`` with ``nothing`` for padding."""
    return np.where(w.valid[:, None], values, nothing)


PADDING: dict[str, PaddedStage] = {
    "valid": lambda w: w.padding.valid,
    "nobody": lambda w: sentinel_of(w.forward.claims.pads.sentinel, w.config.num_experts),
    "routed_ids": lambda w: w.forward.expert_ids,
    "routed_weights": lambda w: w.forward.weights,
    "ids": lambda w: masked(w, w.routed_ids, w.nobody),
    "weights": lambda w: masked(w, w.routed_weights, np.float32(0)),
    "answer": lambda w: Routing(weights=w.weights, expert_ids=w.ids),
}
"""The right stages of a padded batch, by name."""

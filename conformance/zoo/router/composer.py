"""The zoo's composer: a right whole layer in NumPy, made of stages that can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from moe_routing.conformance.zoo.router.functions import Array, sigmoid
from moe_routing.conformance.zoo.router.runner import RunnerWork
from moe_routing.conformance.zoo.router.staged import StagedAdapter
from moe_routing.conformance.zoo.router.stages import RIGHT
from moe_routing.conformance.zoo.router.work import Work
from moe_routing.implementations import Capabilities
from moe_routing.reference import LayerConfig, LayerInputs, LayerResult, Routing
from moe_routing.reference.formats import INPUT_FORMATS

_WHOLE = Capabilities()


class LayerWork:
    """One call of a layer in progress: a stage's value is computed when it is first read.

    ``config`` and ``inputs`` are the call's, ``router`` the right router's work on it, ``memory``
    what is stored between calls, ``own`` the stages that the layer has in place of the right
    ones. ``ids`` and ``weights [T, K]`` are what the experts are given, as is ``x [T, H]``;
    ``routed [T, H]`` their sum, ``shared_x [T, H]`` what the shared expert is given,
    ``shared_output`` and ``shared_gate`` its parts, ``contribution [T, H]`` both (None where there
    is none), ``output [T, H]``, ``routing`` what is answered of it, ``answer``.
    """

    ids: Array
    weights: Array
    x: Array
    routed: Array
    shared_x: Array
    shared_output: Array
    shared_gate: Array | None
    contribution: Array | None
    output: Array
    routing: Any
    answer: Any

    def __init__(
        self,
        own: Mapping[str, LayerStage],
        config: LayerConfig,
        inputs: LayerInputs,
        memory: dict[Any, Any],
    ) -> None:
        self._own, self.config, self.inputs, self.memory = own, config, inputs, memory
        self.router = Work({}, RIGHT, config.router, inputs.router, _WHOLE, {})

    def __getattr__(self, stage: str) -> Any:
        if stage not in COMPOSING:
            raise AttributeError(f"a layer has no stage {stage!r}")
        with np.errstate(all="ignore"):
            value = (self._own.get(stage) or COMPOSING[stage])(self)
        vars(self)[stage] = value
        return value

    def stored(self, values: Array) -> Array:
        """Round to the dtype of the call."""
        with np.errstate(all="ignore"):
            return INPUT_FORMATS[self.inputs.dtype].round(values).astype(np.float32)

    def right(self, stage: str) -> Any:
        """Return what the right stage makes."""
        return COMPOSING[stage](self)


LayerStage = Callable[[LayerWork], Any]


class StagedComposer(StagedAdapter):
    """An adapter that only runs whole layers; its answer is the last of its stages."""

    def layer(self, config: LayerConfig, inputs: LayerInputs) -> Any:
        """Return the stage ``answer``. Errors: ``Unsupported``."""
        self._capabilities.require_layer(config, inputs)
        return LayerWork(self._stages, config, inputs, self.memory).answer


def run(w: LayerWork) -> Array:
    """Return the weighted sum of the chosen experts."""
    return runner(w, w.weights).output


def runner(w: LayerWork, weights: Array) -> RunnerWork:
    """Return the work of the experts on these weights."""
    given = w.inputs.experts_at(np.asarray(w.ids, np.int64), w.stored(weights))
    given = replace(given, hidden=w.x, dtype=w.inputs.dtype)
    return RunnerWork({}, w.config.experts, given, w.memory)


def mlp(w: LayerWork) -> Array:
    """Return the shared expert's output, without its gate."""
    up = w.stored(w.shared_x @ w.inputs.shared_up_proj.T)  # type: ignore[union-attr]
    gate = w.stored(w.shared_x @ w.inputs.shared_gate_proj.T)  # type: ignore[union-attr]
    inner = w.stored(w.stored(gate * sigmoid(gate)) * up)
    return w.stored(inner @ w.inputs.shared_down_proj.T)  # type: ignore[union-attr]


def opened(w: LayerWork) -> Array | None:
    """Return how far the shared expert's gate is open, ``[T, 1]``, or None without a gate."""
    if w.inputs.shared_gate is None:
        return None
    return w.stored(sigmoid(w.stored(w.inputs.hidden @ w.inputs.shared_gate.T)))


def contribution(w: LayerWork) -> Array | None:
    """Return what the shared expert adds, or None."""
    if w.config.shared.kind == "none":
        return None
    gate = w.shared_gate
    return w.shared_output if gate is None else w.stored(w.shared_output * gate)


def added(w: LayerWork) -> Array:
    """Return the routed experts' sum and the shared expert's share, added."""
    return w.routed if w.contribution is None else w.stored(w.routed + w.contribution)


COMPOSING: dict[str, LayerStage] = {
    "ids": lambda w: w.router.expert_ids,
    "weights": lambda w: w.router.weights,
    "x": lambda w: w.inputs.hidden,
    "routed": run,
    "shared_x": lambda w: w.inputs.hidden,
    "shared_output": mlp,
    "shared_gate": opened,
    "contribution": contribution,
    "output": added,
    "routing": lambda w: Routing(weights=w.router.weights, expert_ids=w.router.expert_ids),
    "answer": lambda w: LayerResult(output=w.output, routing=w.routing),
}
"""The right stages of a whole layer, by name."""
